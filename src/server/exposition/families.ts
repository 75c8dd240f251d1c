import type { AgentId } from '../../model/agent-id.ts';
import type { MetricType } from '../../model/family.ts';
import type { SeriesGroup } from '../../model/series.ts';
import { escapeHelp } from '../../model/text-format.ts';
import { decimalsOf } from './numbers.ts';
import { openingOf, type Text } from './series-text.ts';
import { WeakValues } from './weak-values.ts';

/**
 * The families of all agents by name: their order in the text, and their HELP and TYPE. If agents disagree, the oldest
 * declaration counts for as long as a schema has it. So agents that are upgraded one by one end with the new one.
 *
 * Everything here is held weakly: a schema keeps its {@link Layout}, and what no schema keeps is freed. An agent that
 * sends new names for ever leaves nothing behind.
 */
export class FamilyRegistry {
  readonly #entries = new WeakValues<string, FamilyEntry>();
  readonly #layouts = new WeakValues<number, Layout>();
  readonly #onDisagreement: (family: string, agent: AgentId) => void;
  #entryCount = 0;
  #declarationCount = 0;

  constructor(onDisagreement: (family: string, agent: AgentId) => void) {
    this.#onDisagreement = onDisagreement;
  }

  /** Names, also those that will be freed soon. */
  get size(): number {
    return this.#entries.size;
  }

  /** The layout that has these groups after those of `before`: one object for all agents that declare the same. */
  extend(before: Layout | undefined, groups: readonly SeriesGroup[], agent: AgentId): Layout {
    const disagreeing = new Set<string>();
    const added = groups.map((group) => this.#declare(group, disagreeing));
    for (const family of disagreeing) this.#onDisagreement(family, agent);
    const declarations = before === undefined ? added : [...before.declarations, ...added];
    const hash = hashOf(declarations);
    const known = this.#layouts.get(hash);
    if (known !== undefined && sameDeclarations(known.declarations, declarations)) return known;
    const layout = new Layout(declarations);
    this.#layouts.set(hash, layout);
    return layout;
  }

  /** The equal declaration: one object for all agents that agree. */
  #declare(group: SeriesGroup, disagreeing: Set<string>): Declaration {
    const { family } = group;
    const entry = this.#entry(family.name);
    const living = entry.living();
    if (living.length > 0 && living[0]!.type !== family.type) disagreeing.add(family.name);
    const known = living.find((each) => each.says(group));
    if (known !== undefined) return known;
    const declaration = new Declaration(this.#declarationCount++, entry, group);
    entry.declarations.push(new WeakRef(declaration));
    return declaration;
  }

  #entry(name: string): FamilyEntry {
    let entry = this.#entries.get(name);
    if (entry === undefined) {
      entry = new FamilyEntry(name, this.#entryCount++);
      this.#entries.set(name, entry);
    }
    return entry;
  }
}

/** A family's name and place. It lives as long as one of its declarations. */
export class FamilyEntry {
  readonly name: string;
  /** Families are printed in this order: that in which they were first seen. */
  readonly order: number;
  declarations: WeakRef<Declaration>[] = [];

  constructor(name: string, order: number) {
    this.name = name;
    this.order = order;
  }

  /** `# HELP` and `# TYPE`, by the oldest declaration that a schema still has. */
  get header(): Uint8Array {
    return this.living()[0]!.header;
  }

  /** The declarations that a schema still has, oldest first. */
  living(): Declaration[] {
    const living = this.declarations.map((reference) => reference.deref()).filter((each) => each !== undefined);
    if (living.length < this.declarations.length) {
      this.declarations = this.declarations.filter((reference) => reference.deref() !== undefined);
    }
    return living;
  }
}

/** A family as one or more schemas declare it, with one suffix, as far as the text depends on it. */
export class Declaration {
  readonly id: number;
  readonly entry: FamilyEntry;
  /** The beginning of each line. */
  readonly opening: Text;
  readonly type: MetricType;
  readonly help: string;
  readonly suffix: string;
  readonly divisor: number;
  readonly decimals: number;
  #header: Uint8Array | undefined;

  constructor(id: number, entry: FamilyEntry, { family: { type, help, divisor }, suffix }: SeriesGroup) {
    this.id = id;
    this.entry = entry;
    this.opening = openingOf(entry.name + suffix);
    this.type = type;
    this.help = help;
    this.suffix = suffix;
    this.divisor = divisor;
    this.decimals = decimalsOf(divisor);
  }

  says({ family: { type, help, divisor }, suffix }: SeriesGroup): boolean {
    return this.type === type && this.divisor === divisor && this.help === help && this.suffix === suffix;
  }

  get header(): Uint8Array {
    this.#header ??= Buffer.from(headerText(this.entry.name, this));
    return this.#header;
  }
}

/** The families of a schema, block by block. Hosts with the same software share it, whatever their series. */
export class Layout {
  readonly declarations: readonly Declaration[];
  /** The blocks in the order in which their families are printed. */
  readonly blocks: Uint32Array;
  /** The order of each of these blocks' families. Rises, with a family that has several blocks once for each. */
  readonly orders: Float64Array;

  constructor(declarations: readonly Declaration[]) {
    this.declarations = declarations;
    const orders = declarations.map(({ entry }) => entry.order);
    this.blocks = Uint32Array.from(orders.keys()).sort((a, b) => orders[a]! - orders[b]!);
    this.orders = Float64Array.from(this.blocks, (block) => orders[block]!);
  }
}

function headerText(name: string, { type, help }: Declaration): string {
  const typeLine = `# TYPE ${name} ${type}\n`;
  return help === '' ? typeLine : `# HELP ${name} ${escapeHelp(help)}\n${typeLine}`;
}

function hashOf(declarations: readonly Declaration[]): number {
  let hash = 0;
  for (const { id } of declarations) hash = (Math.imul(hash, 31) + id) | 0;
  return hash;
}

function sameDeclarations(a: readonly Declaration[], b: readonly Declaration[]): boolean {
  return a.length === b.length && a.every((declaration, at) => declaration === b[at]);
}
