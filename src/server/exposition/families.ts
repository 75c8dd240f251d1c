import type { AgentId } from '../../model/agent-id.ts';
import type { MetricType } from '../../model/family.ts';
import type { SeriesGroup } from '../../model/series.ts';
import { escapeHelp } from '../../model/text-format.ts';
import { decimalsOf } from './numbers.ts';
import { openingOf, type Text } from './series-text.ts';
import { WeakValues } from './weak-values.ts';

/**
 * The families of all agents by name: their order in the text, and their HELP and TYPE. If agents disagree, what most of
 * them declare is shown: neither the one that came first nor one with many schemas decides for the others.
 *
 * Everything here is held weakly: a schema keeps its {@link Layout}, and what no schema keeps is freed. An agent that
 * sends new names for ever leaves nothing behind.
 */
export class FamilyRegistry {
  readonly #entries = new WeakValues<string, FamilyEntry>();
  readonly #layouts = new WeakValues<number, Layout>();
  readonly #onDisagreement: OnDisagreement;
  #entryCount = 0;
  #declarationCount = 0;

  constructor(onDisagreement: OnDisagreement) {
    this.#onDisagreement = onDisagreement;
  }

  /** Names, also those that will be freed soon. */
  get size(): number {
    return this.#entries.size;
  }

  /** The layout that has these groups after those of `before`: one object for all agents that declare the same. */
  extend(before: Layout | undefined, groups: readonly SeriesGroup[], agent: AgentId): Layout {
    const disagreeing = new Map<FamilyEntry, MetricType>();
    const added = groups.map((group) => this.#declare(group, agent, disagreeing));
    for (const [entry, type] of disagreeing) this.#onDisagreement(entry.name, { agent, type }, entry.shown);
    const declarations = before === undefined ? added : [...before.declarations, ...added];
    const hash = hashOf(declarations);
    const known = this.#layouts.get(hash);
    if (known !== undefined && sameDeclarations(known.declarations, declarations)) return known;
    const layout = new Layout(declarations);
    this.#layouts.set(hash, layout);
    return layout;
  }

  /** By the agents that vote for each layout: what is shown of families that are declared in several ways. */
  elect(votes: ReadonlyMap<Layout, number>): void {
    const ballots = new Map<FamilyEntry, Ballot>();
    for (const [{ declarations }, count] of votes) {
      for (const declaration of declarations) {
        const { entry } = declaration;
        if (!entry.isDisputed) continue;
        const ballot = ballots.get(entry) ?? new Ballot();
        ballots.set(entry, ballot);
        ballot.add(declaration, count);
      }
    }
    for (const [entry, ballot] of ballots) entry.elect(ballot);
  }

  /** The equal declaration: one object for all agents that agree. */
  #declare(group: SeriesGroup, agent: AgentId, disagreeing: Map<FamilyEntry, MetricType>): Declaration {
    const { family } = group;
    const entry = this.#entry(family.name);
    const living = entry.living();
    if (living.length > 0 && entry.shown.type !== family.type) disagreeing.set(entry, family.type);
    const known = living.find((each) => each.says(group));
    if (known !== undefined) return known;
    const declaration = new Declaration(this.#declarationCount++, { entry, group, agent });
    entry.add(declaration);
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

/** An agent has declared a family with another type than the one that is shown, and that of the agent which gave it. */
export type OnDisagreement = (family: string, other: AgentType, shown: AgentType) => void;

export interface AgentType {
  readonly agent: AgentId;
  readonly type: MetricType;
}

/** How many agents declare a family in which words. */
class Ballot {
  readonly #counts = new Map<string, { readonly declaration: Declaration; count: number }>();
  total = 0;

  add(declaration: Declaration, count: number): void {
    this.total += count;
    const same = this.#counts.get(declaration.words);
    if (same === undefined) this.#counts.set(declaration.words, { declaration, count });
    else same.count += count;
  }

  countOf({ words }: Declaration): number {
    return this.#counts.get(words)?.count ?? 0;
  }

  /** Of two with as many votes the older one. */
  get best(): Declaration {
    return [...this.#counts.values()].reduce((best, each) =>
      each.count > best.count || (each.count === best.count && each.declaration.id < best.declaration.id) ? each : best,
    ).declaration;
  }
}

/** A family's name and place. It lives as long as one of its declarations. */
export class FamilyEntry {
  readonly name: string;
  /** Families are printed in this order: that in which they were first seen. */
  readonly order: number;
  declarations: WeakRef<Declaration>[] = [];
  /** It was declared in other words, too. */
  isDisputed = false;
  #elected: WeakRef<Declaration> | undefined;
  /** With how many votes. */
  #votes = 0;

  constructor(name: string, order: number) {
    this.name = name;
    this.order = order;
  }

  /** `# HELP` and `# TYPE`. */
  get header(): Uint8Array {
    return this.shown.header;
  }

  /** What was elected, as long as a schema has it; else the oldest declaration. */
  get shown(): Declaration {
    return this.#elected?.deref() ?? this.living()[0]!;
  }

  add(declaration: Declaration): void {
    this.isDisputed ||= this.living().some(({ words }) => words !== declaration.words);
    this.declarations.push(new WeakRef(declaration));
  }

  /** An answer has the reports of some agents only: with fewer votes than before nothing is decided. */
  elect(ballot: Ballot): void {
    const elected = this.#elected?.deref();
    if (elected === undefined) this.#votes = 0;
    else if (ballot.total >= this.#votes) this.#votes = ballot.countOf(elected) || this.#votes;
    const { best } = ballot;
    if (ballot.countOf(best) <= this.#votes) return;
    this.#elected = new WeakRef(best);
    this.#votes = ballot.countOf(best);
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
  /** The first that declared it so. */
  readonly agent: AgentId;
  /** Its type and help. */
  readonly words: string;
  /** The beginning of each line. */
  readonly opening: Text;
  readonly type: MetricType;
  readonly help: string;
  readonly suffix: string;
  readonly divisor: number;
  readonly decimals: number;
  #header: Uint8Array | undefined;

  constructor(
    id: number,
    { entry, group, agent }: { readonly entry: FamilyEntry; readonly group: SeriesGroup; readonly agent: AgentId },
  ) {
    const { family, suffix } = group;
    const { type, help, divisor } = family;
    this.id = id;
    this.entry = entry;
    this.agent = agent;
    this.words = `${type} ${help}`;
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
