import { deniedText } from './denied.ts';
import { boolean, type Parser, path } from './option-parsers.ts';
import { codeOf, reasonOf, withoutKeys } from './words.ts';

export * from './option-parsers.ts';

/**
 * Options: a row each, from which come the values, `--help` and the documented environment file.
 *
 * An option named `spool.max-bytes` is set by `--spool.max-bytes 64MiB` (or `=64MiB`), else by `SYSMON_SPOOL_MAX_BYTES`
 * in the environment, else by the same name in the file that `--config.file` names, else it has its default.
 */
export interface OptionRow<T> {
  readonly name: string;
  /** The name of the value in the help, such as `BYTES`. Undefined: a switch, which needs none. */
  readonly placeholder: string | undefined;
  /** What it is where the command line gives it without a value. Undefined: that is refused. */
  readonly bare: string | undefined;
  /** As one would write it. Undefined: none. */
  readonly default: string | undefined;
  /** What the help says instead where the default depends on the host. */
  readonly defaultHelp: string | undefined;
  readonly help: string;
  /** A list: the flag may be repeated; in the environment commas separate. */
  readonly repeatable: boolean;
  /** The commands that it belongs to; undefined: all. */
  readonly commands: readonly string[] | undefined;
  /** It makes no sense in the environment or a file of options, and is not read from there. */
  readonly isOfCommandLine: boolean;
  /** Throws an Error whose message says what was expected. */
  readonly toValue: (texts: readonly string[]) => T;
}

interface Common {
  readonly name: string;
  readonly help: string;
  readonly commands?: readonly string[];
  readonly isOfCommandLine?: boolean;
}

interface Valued<T> extends Common {
  readonly placeholder: string;
  readonly parse: Parser<T>;
  readonly bare?: string;
  readonly default?: string | undefined;
  readonly defaultHelp?: string;
}

/** An option that always has a value. */
export function option<T>(row: Valued<T> & { readonly default: string }): OptionRow<T> {
  return {
    ...common(row),
    repeatable: false,
    toValue: ([text]) => {
      if (text === undefined) throw new Error('expected a value');
      return row.parse(text);
    },
  };
}

/** An option that may have none: without a default, or where an empty text was given. */
export function optional<T>(row: Valued<T>): OptionRow<T | undefined> {
  return {
    ...common(row),
    repeatable: false,
    toValue: ([text]) => (text === undefined || text === '' ? undefined : row.parse(text)),
  };
}

/** An option with any number of values. */
export function listOption<T>(row: Valued<T>): OptionRow<readonly T[]> {
  return { ...common(row), repeatable: true, toValue: (texts) => texts.map(row.parse) };
}

/** A switch, off unless given: `--allow-plaintext`, or with `=true` and `=false`. */
export function flagOption(row: Common): OptionRow<boolean> {
  return {
    ...common({ ...row, default: 'false' }),
    placeholder: undefined,
    repeatable: false,
    toValue: ([text]) => boolean(text ?? 'false'),
  };
}

/**
 * The option that names the file of options: read where it exists, and it must exist where it was named. Not called
 * `env-file`, which Node takes for its own, also behind the name of the script: https://github.com/nodejs/node/issues/54232
 */
export function configFileOption(defaultPath: string): OptionRow<string | undefined> {
  return optional({
    name: configFileName,
    placeholder: 'FILE',
    parse: path,
    default: defaultPath,
    help: 'File of options, as SYSMON_NAME=VALUE lines. The command line and the environment take precedence.',
    defaultHelp: `${defaultPath} where it exists`,
  });
}

export const configFileName = 'config.file';

function common<T>(row: Omit<Valued<T>, 'placeholder' | 'parse'> & { placeholder?: string }) {
  return {
    name: row.name,
    placeholder: row.placeholder,
    bare: row.bare,
    default: row.default,
    defaultHelp: row.defaultHelp,
    help: row.help,
    commands: row.commands,
    isOfCommandLine: row.isOfCommandLine ?? false,
  };
}

export interface Command {
  readonly name: string;
  /** Names of the words that must follow, such as `NAME`. */
  readonly arguments?: readonly string[];
  readonly help: string;
}

// biome-ignore lint/suspicious/noExplicitAny: rows of whatever value, each typed by its own key in Values
export type OptionRows = Readonly<Record<string, OptionRow<any>>>;
export type Values<R extends OptionRows> = { readonly [K in keyof R]: R[K] extends OptionRow<infer T> ? T : never };

export interface Program<R extends OptionRows> {
  readonly name: string;
  readonly summary: string;
  /** The first is what runs where none is named. */
  readonly commands: readonly [Command, ...Command[]];
  readonly options: R;
}

export interface Sources {
  /** Without the program itself: `process.argv.slice(2)`. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Reads the environment file; throws as `readFileSync` does. */
  readonly readFile: (path: string) => string;
}

export interface Options<R extends OptionRows> {
  readonly command: string;
  readonly arguments: readonly string[];
  readonly values: Values<R>;
  /** `name=value` for each that differs from its default: for the line that a start logs. */
  readonly changed: readonly string[];
  /** The error for a value that is wrong only together with something else. `expected` begins with that word. */
  refuse(name: string, expected: string): UsageError;
}

/** Wrong use: what was given, where, and what was expected. The program ends with 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'usage';
}

/** Gathers wrong uses, so that all of them are named at once. */
export class Problems {
  readonly #messages: string[] = [];

  /** What the part returns; undefined where it is wrong use, and {@link throwAny} will throw. */
  attempt<T>(part: () => T): T | undefined {
    try {
      return part();
    } catch (error) {
      this.#add(error);
      return undefined;
    }
  }

  async attemptAsync<T>(part: () => Promise<T>): Promise<T | undefined> {
    try {
      return await part();
    } catch (error) {
      this.#add(error);
      return undefined;
    }
  }

  /** Throws a UsageError with a line for each problem, if there is one. */
  throwAny(): void {
    if (this.#messages.length > 0) throw new UsageError(this.#messages.join('\n'));
  }

  #add(error: unknown): void {
    if (!(error instanceof UsageError)) throw error;
    this.#messages.push(error.message);
  }
}

/** What an option was set to, and by what: `texts` is empty for a list of nothing. */
interface Given {
  readonly texts: readonly string[];
  readonly where: string;
}

/** The command and a value for each option, or a UsageError. */
export function readOptions<R extends OptionRows>(program: Program<R>, sources: Sources): Options<R> {
  const rows = new Map(Object.values(program.options).map((row) => [row.name, row]));
  const { words, flags } = readArguments(rows, sources.argv);
  const command = readCommand(program, words);
  for (const name of flags.keys()) refuseForeign(rows.get(name), command, program);

  const environment = readEnvironment(rows, sources.env);
  const problems = new Problems();
  const file = readConfigFile(rows, flags.get(configFileName) ?? environment.get(configFileName), {
    readFile: sources.readFile,
    problems,
  });
  const given = new Map([...file, ...environment, ...flags]);

  const values: Record<string, unknown> = {};
  const changed: string[] = [];
  for (const [key, row] of Object.entries(program.options)) {
    values[key] = problems.attempt(() => parsedValue(row, given.get(row.name)));
    const texts = given.get(row.name)?.texts;
    if (texts !== undefined && !sameTexts(texts, defaultTexts(row))) changed.push(`${row.name}=${shown(texts)}`);
  }
  problems.throwAny();
  return {
    command,
    arguments: words.slice(1),
    // Each key was filled from the row of the same key.
    values: values as Values<R>,
    changed,
    refuse: (name, expected) => {
      const row = rows.get(name);
      return refusal(name, given.get(name) ?? { texts: row ? defaultTexts(row) : [], where: 'its default' }, expected);
    },
  };
}

function readArguments(rows: ReadonlyMap<string, OptionRow<unknown>>, argv: readonly string[]) {
  const words: string[] = [];
  const flags = new Map<string, Given>();
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? '';
    if (argument === '--') {
      words.push(...argv.slice(index + 1));
      break;
    }
    if (!argument.startsWith('-') || argument === '-') {
      words.push(argument);
      continue;
    }
    const [, name = '', inline] = /^--?([^=]*)(?:=(.*))?$/s.exec(argument) ?? [];
    const row = argument.startsWith('--') ? rows.get(name) : undefined;
    if (row === undefined) throw unknownOption(rows, argument.split('=', 1)[0] ?? argument);
    let text = inline;
    if (text === undefined && row.bare !== undefined && isOption(argv[index + 1])) text = row.bare;
    if (text === undefined && row.placeholder !== undefined) text = followingValue(row, argv[++index]);
    addFlag(flags, row, text ?? 'true');
  }
  return { words, flags };
}

function isOption(argument: string | undefined): boolean {
  return argument === undefined || argument.startsWith('--');
}

function followingValue(row: OptionRow<unknown>, next: string | undefined): string {
  if (next === undefined) throw new UsageError(`option '--${row.name}' has no value: expected ${row.placeholder}`);
  if (next.startsWith('--')) {
    throw new UsageError(
      `option '--${row.name}' is followed by '${next}': expected ${row.placeholder} (write '--${row.name}=${next}' if that is the value)`,
    );
  }
  return next;
}

function addFlag(flags: Map<string, Given>, row: OptionRow<unknown>, text: string): void {
  const before = flags.get(row.name);
  if (before !== undefined && !row.repeatable) {
    throw new UsageError(
      `option '--${row.name}' is given twice, as ${quoted(before.texts)} and ${quoted([text])}: expected once`,
    );
  }
  flags.set(row.name, { texts: [...(before?.texts ?? []), text], where: 'the command line' });
}

function unknownOption(rows: ReadonlyMap<string, OptionRow<unknown>>, flag: string): UsageError {
  const names = [...rows.keys(), 'help', 'version'];
  return new UsageError(
    `unknown option '${shorten(flag)}'${suggestion(
      flag.replace(/^-+/, ''),
      names.map((name) => [name, `--${name}`]),
    )}: see --help`,
  );
}

function readCommand<R extends OptionRows>(program: Program<R>, words: readonly string[]): string {
  const [name = program.commands[0].name, ...rest] = words;
  const command = program.commands.find((candidate) => candidate.name === name);
  if (command === undefined) {
    const names = program.commands.map((candidate) => candidate.name);
    const near = suggestion(
      name,
      names.map((candidate) => [candidate, candidate]),
    );
    throw new UsageError(`unknown command '${shorten(name)}'${near}: expected ${names.join(', ')}`);
  }
  const expected = command.arguments ?? [];
  if (rest.length !== expected.length) {
    const extra = rest.slice(expected.length);
    const problem =
      extra.length > 0 ? `${quoted(extra)} is too much` : `${expected.slice(rest.length).join(' ')} is missing`;
    throw new UsageError(`${problem}: expected '${[program.name, name, ...expected].join(' ')}'`);
  }
  return name;
}

function refuseForeign<R extends OptionRows>(
  row: OptionRow<unknown> | undefined,
  command: string,
  program: Program<R>,
): void {
  if (row?.commands === undefined || row.commands.includes(command)) return;
  throw new UsageError(
    `option '--${row.name}' does not belong to '${program.name} ${command}': expected with ${row.commands.join(', ')}`,
  );
}

/** The variables of the options that differ between two readings of the same sources, by what each of them has changed. */
export function changedOptions(before: readonly string[], after: readonly string[]): string[] {
  const differing = [
    ...before.filter((each) => !after.includes(each)),
    ...after.filter((each) => !before.includes(each)),
  ];
  return [...new Set(differing.map((each) => environmentName(each.slice(0, each.indexOf('=')))))];
}

/** `spool.max-bytes` → `SYSMON_SPOOL_MAX_BYTES`. */
export function environmentName(name: string): string {
  return `SYSMON_${name.toUpperCase().replace(/[.-]/g, '_')}`;
}

// What is unknown is left alone: the environment is shared, by `npm start` between agent and server.
function readEnvironment(rows: ReadonlyMap<string, OptionRow<unknown>>, env: Sources['env']): Map<string, Given> {
  const given = new Map<string, Given>();
  for (const row of rows.values()) {
    if (row.isOfCommandLine) continue;
    const variable = environmentName(row.name);
    const text = env[variable];
    if (text !== undefined) given.set(row.name, { texts: split(row, text), where: `${variable} in the environment` });
  }
  return given;
}

function split(row: OptionRow<unknown>, text: string): string[] {
  if (!row.repeatable) return [text];
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

function readConfigFile(
  rows: ReadonlyMap<string, OptionRow<unknown>>,
  given: Given | undefined,
  { readFile, problems }: { readonly readFile: Sources['readFile']; readonly problems: Problems },
): Map<string, Given> {
  const row = rows.get(configFileName);
  const file = given ? given.texts[0] : row?.default;
  if (row === undefined || file === undefined || file === '') return new Map();
  let text: string;
  try {
    text = readFile(file);
  } catch (error) {
    if (given === undefined && ['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return new Map();
    const expected = `expected a readable file: ${codeOf(error) === 'EACCES' ? deniedText(file, { mode: '0644' }) : reasonOf(error)}`;
    throw refusal(configFileName, given ?? { texts: [file], where: 'its default' }, expected);
  }
  return parseConfigFile(rows, { file, text }, problems);
}

function parseConfigFile(
  rows: ReadonlyMap<string, OptionRow<unknown>>,
  { file, text }: { readonly file: string; readonly text: string },
  problems: Problems,
): Map<string, Given> {
  const ofFile = [...rows.values()].filter(({ isOfCommandLine }) => !isOfCommandLine);
  const byVariable = new Map(ofFile.map((row) => [environmentName(row.name), row]));
  byVariable.delete(environmentName(configFileName)); // a file cannot name another
  const given = new Map<string, Given>();
  for (const [index, line] of text.split('\n').entries()) {
    const content = line.trim();
    if (content === '' || content.startsWith('#')) continue;
    problems.attempt(() => {
      const { row, setting } = parseLine(byVariable, { content, where: `'${file}', line ${index + 1}` });
      given.set(row.name, setting);
    });
  }
  return given;
}

function parseLine(
  byVariable: ReadonlyMap<string, OptionRow<unknown>>,
  { content, where }: { readonly content: string; readonly where: string },
): { readonly row: OptionRow<unknown>; readonly setting: Given } {
  const [, variable, value] = /^([A-Za-z0-9_]+)\s*=\s*(.*)$/.exec(content) ?? [];
  if (variable === undefined || value === undefined) {
    throw new UsageError(`${where} is '${shorten(content)}': expected SYSMON_NAME=VALUE`);
  }
  const row = byVariable.get(variable);
  if (row === undefined) {
    const bare = (name: string) => name.replace(/^SYSMON_/, '');
    const near = suggestion(
      bare(variable),
      [...byVariable.keys()].map((name) => [bare(name), name]),
    );
    throw new UsageError(`unknown option '${shorten(variable)}' in ${where}${near}`);
  }
  return { row, setting: { texts: split(row, unquoted(value, where)), where: `${variable} in ${where}` } };
}

/** A value keeps the spaces at its ends, or its emptiness, in quotes; nothing within is special. */
function unquoted(value: string, where: string): string {
  const quote = value[0];
  if (quote !== '"' && quote !== "'") return value;
  if (value.length < 2 || !value.endsWith(quote)) {
    throw new UsageError(`${where} is '${shorten(value)}': expected a ${quote} at its end too`);
  }
  return value.slice(1, -1);
}

function parsedValue<T>(row: OptionRow<T>, given: Given | undefined): T {
  const texts = given?.texts ?? defaultTexts(row);
  try {
    return row.toValue(texts);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw refusal(row.name, given ?? { texts, where: 'its default' }, error.message);
  }
}

function defaultTexts(row: OptionRow<unknown>): readonly string[] {
  return row.default === undefined ? [] : split(row, row.default);
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, index) => text === b[index]);
}

function refusal(name: string, given: Given, expected: string): UsageError {
  return new UsageError(`option '--${name}' is ${quoted(given.texts)} (by ${given.where}): ${expected}`);
}

function quoted(texts: readonly string[]): string {
  return texts.length === 0 ? 'nothing' : `'${shown(texts)}'`;
}

function shown(texts: readonly string[]): string {
  return shorten(texts.join(','));
}

// Somebody will put a password into a URL; it must not go to the log.
function shorten(text: string): string {
  const safe = withoutKeys(text).replace(/:\/\/[^\s/?#]*@/g, '://(user)@');
  return safe.length > 200 ? `${safe.slice(0, 199)}…` : safe;
}

/** `, did you mean '--listen'?` for the nearest candidate, if one is near. */
function suggestion(word: string, candidates: readonly (readonly [compared: string, shown: string])[]): string {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const [compared, shown] of candidates) {
    const distance = editDistance(word, compared);
    if (distance < bestDistance) {
      best = shown;
      bestDistance = distance;
    }
  }
  return best === undefined ? '' : `, did you mean '${best}'?`;
}

function editDistance(a: string, b: string): number {
  // What is that much longer than any name is near to none.
  if (Math.abs(a.length - b.length) > 20) return Number.POSITIVE_INFINITY;
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const line = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = (above[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      line.push(Math.min(replaced, (above[column] ?? 0) + 1, (line[column - 1] ?? 0) + 1));
    }
    above = line;
  }
  return above[b.length] ?? 0;
}
