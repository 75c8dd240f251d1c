import {
  type Command,
  configFileName,
  environmentName,
  type OptionRow,
  type OptionRows,
  type Program,
} from './options.ts';

/**
 * What `--help` or `--version` prints, wherever on the line it stands; undefined where neither does. `COMMAND --help` and
 * `help COMMAND` show that command with its options alone.
 */
export function helpOrVersion<R extends OptionRows>(
  program: Program<R>,
  version: string,
  argv: readonly string[],
): string | undefined {
  const end = argv.indexOf('--');
  const flags = end === -1 ? argv : argv.slice(0, end);
  const words = flags[0] === 'help' ? flags.slice(1) : flags;
  if (flags[0] === 'help' || flags.includes('--help') || flags.includes('-h')) {
    const command = program.commands.find(({ name }) => name === words[0]);
    return command === undefined ? helpText(program) : commandHelpText(program, command);
  }
  if (flags.includes('--version')) return `${program.name} ${version}\n`;
  return undefined;
}

const helpWidth = 100;

/** Every command and every option. */
export function helpText<R extends OptionRows>(program: Program<R>): string {
  const lines = [...wrapped(program.summary, helpWidth), '', `Usage: ${program.name} [COMMAND] [OPTION …]`, ''];
  const commands = program.commands.map((command, index) => ({
    left: `  ${usageOf(command)}`,
    right: index === 0 ? `${command.help} (default)` : command.help,
  }));
  const width = Math.max(...commands.map(({ left }) => left.length)) + 2;
  for (const { left, right } of commands) lines.push(...beside(left.padEnd(width), right));
  lines.push('', `'${program.name} help COMMAND' shows the options of one command.`);
  lines.push(...optionLines(Object.values(program.options), helpOf));
  return `${lines.join('\n')}\n`;
}

/** One command and the options that belong to it. */
function commandHelpText<R extends OptionRows>(program: Program<R>, command: Command): string {
  const rows = Object.values(program.options).filter((row) => row.commands?.includes(command.name) ?? true);
  const lines = [...wrapped(command.help, helpWidth), '', `Usage: ${program.name} ${usageOf(command)} [OPTION …]`];
  lines.push(...optionLines(rows, (row) => helpOf({ ...row, commands: undefined })));
  return `${lines.join('\n')}\n`;
}

function usageOf(command: Command): string {
  return [command.name, ...(command.arguments ?? [])].join(' ');
}

function optionLines(rows: readonly OptionRow<unknown>[], helpOfRow: (row: OptionRow<unknown>) => string): string[] {
  const variable = environmentName(configFileName);
  const lines = ['', `Options; each can also be set in the environment, --${configFileName} as ${variable}:`, ''];
  for (const row of rows) lines.push(...optionHelp(row, helpOfRow(row)));
  return [...lines, '  --help, -h', '        Print this help.', '  --version', '        Print the version.'];
}

/** One option: its name and, below it, its help. */
export function optionHelp(row: OptionRow<unknown>, help = helpOf(row)): string[] {
  return [`  --${row.name}${row.placeholder === undefined ? '' : ` ${row.placeholder}`}`, ...indented(help, 8)];
}

function helpOf(row: OptionRow<unknown>): string {
  const parts = [row.help];
  if (row.repeatable)
    parts.push(`May be repeated${row.isOfCommandLine ? '' : '; in the environment, commas separate the values'}.`);
  const standard = row.defaultHelp ?? (row.placeholder === undefined ? undefined : row.default);
  if (standard !== undefined && standard !== '') parts.push(`Default: ${standard}`);
  if (row.isOfCommandLine) parts.push('On the command line only.');
  if (row.commands !== undefined) parts.push(`(${row.commands.join(', ')})`);
  return parts.join(' ');
}

/** The file of options with every option, commented out. */
export function envFileText<R extends OptionRows>(program: Program<R>): string {
  const lines = [
    `# Options of ${program.name}, one NAME=VALUE a line. Quotes keep spaces at the ends; nothing else is special.`,
    '# The command line and the environment take precedence over this file.',
    `# '${program.name} check' tests the options without starting anything.`,
  ];
  const main = program.commands[0].name;
  for (const row of Object.values(program.options)) {
    // A switch of another command (--json) is for its line; a value of another one (--advertise) is the host's.
    const isOfMain = row.commands === undefined || row.commands.includes(main);
    if (row.name === configFileName || row.isOfCommandLine || (!isOfMain && row.placeholder === undefined)) continue;
    lines.push('', ...wrapped(helpOf(row), helpWidth).map((line) => `# ${line}`));
    lines.push(`#${environmentName(row.name)}=${row.default ?? ''}`);
  }
  return `${lines.join('\n')}\n`;
}

function beside(left: string, right: string): string[] {
  const [first = '', ...rest] = wrapped(right, helpWidth - left.length);
  return [left + first, ...rest.map((line) => ' '.repeat(left.length) + line)];
}

function indented(text: string, columns: number): string[] {
  return wrapped(text, helpWidth - columns).map((line) => ' '.repeat(columns) + line);
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
