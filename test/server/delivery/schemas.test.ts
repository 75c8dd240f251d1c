import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Schema } from '../../../src/model/schema.ts';
import type { SeriesGroup } from '../../../src/model/series.ts';
import { SchemasInUse } from '../../../src/server/delivery/schemas.ts';
import { groupOf, type LabelledFamily } from '../../support/groups.ts';

/** As it comes off the wire: nothing in it is an object that is known. */
function declaration(name: string, values: readonly string[], fields: Partial<LabelledFamily> = {}): SeriesGroup {
  return groupOf({ name, type: 'gauge', help: 'Help.', divisor: 1, labelNames: ['l'], ...fields }, [...values]);
}

function declared(schemas: SchemasInUse, ...declarations: readonly SeriesGroup[]): Schema {
  const schema = new Schema();
  for (const each of declarations) schema.add(schemas.share(each));
  schemas.hold(schema);
  return schema;
}

test('equal families and label values are one object for all schemas, and counted once', () => {
  const schemas = new SchemasInUse();
  const values = Array.from({ length: 100 }, (_, at) => `value-${at}`);
  const first = declared(schemas, declaration('a', values));
  const bytes = schemas.bytes;
  assert.ok(bytes > 100 * (24 + 7), `${bytes} bytes`);
  const second = declared(schemas, declaration('a', values));
  assert.equal(second.blocks[0]!.family, first.blocks[0]!.family);
  assert.equal(second.blocks[0]!.labelValues, first.blocks[0]!.labelValues);
  assert.ok(schemas.bytes - bytes < 1000, `${schemas.bytes - bytes} bytes for the second`);
});

test('equal declarations are one object, wherever in their schemas they stand, and cost a place each', () => {
  const schemas = new SchemasInUse();
  const values = Array.from({ length: 100 }, (_, at) => `value-${at}`);
  const first = declared(schemas, declaration('a', values), declaration('b', values));
  const bytes = schemas.bytes;
  const second = declared(schemas, declaration('first', ['x']), declaration('b', values), declaration('a', values));
  assert.equal(second.groups[1], first.groups[1]);
  assert.equal(second.groups[2], first.groups[0]);
  assert.deepEqual(
    second.blocks.map(({ family, firstSeries }) => [family.name, firstSeries]),
    [
      ['first', 0],
      ['b', 1],
      ['a', 101],
    ],
  );
  schemas.release(second);
  assert.equal(schemas.bytes, bytes);
  const third = declared(schemas, declaration('a', values));
  assert.ok(schemas.bytes - bytes < 500, `${schemas.bytes - bytes} bytes for the third`);
  assert.equal(third.groups[0], first.groups[0]);
});

test('the families of one schema share label values that no other has yet', () => {
  const schemas = new SchemasInUse();
  const { groups } = declared(schemas, declaration('a', ['x', 'y']), declaration('b', ['x', 'y']));
  assert.equal(groups[1]!.labelValues, groups[0]!.labelValues);
});

test('whatever differs is not shared', () => {
  const others: SeriesGroup[] = [
    declaration('a', ['x'], { help: 'Other help.' }),
    declaration('a', ['x'], { type: 'counter' }),
    declaration('a', ['x'], { divisor: 2 }),
    declaration('b', ['x']),
  ];
  for (const other of others) {
    const schemas = new SchemasInUse();
    const first = declared(schemas, declaration('a', ['x']));
    const second = declared(schemas, other);
    assert.notEqual(second.blocks[0]!.family, first.blocks[0]!.family);
    assert.deepEqual(second.blocks[0]!.family, other.family);
    assert.equal(second.blocks[0]!.labelValues, first.blocks[0]!.labelValues);
  }
  for (const more of [{ labelNames: ['k'] }, { suffix: '_sum' }]) {
    const schemas = new SchemasInUse();
    const first = declared(schemas, declaration('a', ['x']));
    const second = declared(schemas, { ...declaration('a', ['x']), ...more });
    assert.notEqual(second.groups[0], first.groups[0]);
    assert.equal(second.groups[0]!.family, first.groups[0]!.family);
    assert.equal(second.groups[0]!.labelValues, first.groups[0]!.labelValues);
  }
  for (const values of [['y'], ['x', 'x'], ['']]) {
    const schemas = new SchemasInUse();
    const first = declared(schemas, declaration('a', ['x']));
    const second = declared(schemas, declaration('a', values));
    assert.equal(second.blocks[0]!.family, first.blocks[0]!.family);
    assert.deepEqual(second.blocks[0]!.labelValues, values);
  }
});

test('what is shared counts until the last that has it is released', () => {
  const schemas = new SchemasInUse();
  const first = declared(schemas, declaration('a', ['x'.repeat(5000)]));
  const second = declared(schemas, declaration('a', ['x'.repeat(5000)]));
  schemas.hold(second);
  schemas.release(first);
  schemas.release(second);
  assert.ok(schemas.bytes > 5000);
  const third = declared(schemas, declaration('a', ['x'.repeat(5000)]));
  assert.equal(third.blocks[0]!.family, second.blocks[0]!.family);
  schemas.release(second);
  schemas.release(third);
  assert.equal(schemas.bytes, 0);
  assert.throws(() => schemas.release(third), /released that nobody holds/);
});

test('of families that differ under one name only some are looked at', () => {
  const schemas = new SchemasInUse();
  const helps = Array.from({ length: 20 }, (_, at) => `help ${at}`);
  const firsts = helps.map((help) => declared(schemas, declaration('a', ['x'], { help })));
  const seconds = helps.map((help) => declared(schemas, declaration('a', ['x'], { help })));
  const shared = helps.filter((_, at) => firsts[at]!.blocks[0]!.family === seconds[at]!.blocks[0]!.family);
  assert.deepEqual(shared, helps.slice(0, 8));
  for (const schema of [...firsts, ...seconds]) schemas.release(schema);
  assert.equal(schemas.bytes, 0);
});

test('the sum is that of the schemas that are held, in whatever order they come, grow and go', () => {
  const part = fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.constantFrom(0, 1, 2, 3), fc.constantFrom('x', 'yy'));
  const step = fc.record({ slot: fc.nat(3), what: fc.constantFrom('new', 'grow', 'again', 'release'), part });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const schemas = new SchemasInUse();
      const held: Schema[][] = [[], [], [], []];
      for (const {
        slot,
        what,
        part: [name, count, value],
      } of steps) {
        const list = held[slot]!;
        const values = Array.from({ length: count }, (_, at) => `${value}${at}`);
        const last = list.at(-1);
        if (what === 'new') list.push(declared(schemas, declaration(name, values)));
        else if (last === undefined) continue;
        else if (what === 'release') schemas.release(list.pop()!);
        else {
          if (what === 'grow') last.add(schemas.share(declaration(name, values)));
          schemas.hold(last);
          list.push(last);
        }
      }
      // The same schemas, held once each, in a fresh count; what has grown since it was held last is not counted there.
      const all = held.flat();
      const fresh = new SchemasInUse();
      for (const schema of all) fresh.hold(schema);
      assert.equal(schemas.bytes, fresh.bytes);
      for (const schema of all) schemas.release(schema);
      assert.equal(schemas.bytes, 0);
    }),
  );
});

test('what a large schema took is given back little by little, and counts as gone at once', () => {
  const schemas = new SchemasInUse();
  const kept = declared(schemas, declaration('kept', ['x']));
  const { bytes } = schemas;
  const many = Array.from({ length: 5000 }, (_, at) => declaration(`a${at}`, [`${at}`]));
  const large = declared(schemas, ...many);
  assert.ok(schemas.bytes > bytes + 5000 * 100);
  const released = schemas.release(large);
  assert.ok(released > 5000 * 100, `${released} bytes`);
  // What it shared with itself, such as the names of labels, was counted once and goes with its last group.
  assert.ok(schemas.bytes <= bytes, `${schemas.bytes} of ${bytes} bytes`);
  const isShared = () => schemas.share(many[4999]!) === large.groups[4999];
  let rounds = 0;
  for (; isShared(); rounds++) schemas.giveBack();
  assert.ok(rounds > 5 && rounds < 20, `${rounds} rounds`);
  assert.equal(schemas.bytes, bytes);
  // A frame that declares gives back more than it can declare.
  for (let round = 0; round < 100; round++) {
    schemas.release(declared(schemas, ...many.slice(0, 400)));
    assert.ok(schemas.bytes <= bytes);
  }
  schemas.release(kept);
  for (let round = 0; round < 10; round++) schemas.giveBack();
  assert.equal(schemas.bytes, 0);
});
