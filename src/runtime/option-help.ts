import { envFileName, environmentName, type OptionRow, type OptionRows, type Program } from './options.ts';

/** What `--help` or `--version` prints, wherever on the line it stands; undefined where neither does. */
export function helpOrVersion<R extends OptionRows>(
  program: Program<R>,
  version: string,
  argv: readonly string[],
): string | undefined {
  const end = argv.indexOf('--');
  const flags = end === -1 ? argv : argv.slice(0, end);
  if (flags.includes('--help') || flags.includes('-h')) return helpText(program);
  if (flags.includes('--version')) return `${program.name} ${version}\n`;
  return undefined;
}

const helpWidth = 100;

export function helpText<R extends OptionRows>(program: Program<R>): string {
  const lines = [...wrapped(program.summary, helpWidth), '', `Usage: ${program.name} [COMMAND] [OPTION …]`, ''];
  const commands = program.commands.map((command, index) => ({
    left: `  ${[command.name, ...(command.arguments ?? [])].join(' ')}`,
    right: index === 0 ? `${command.help} (default)` : command.help,
  }));
  const width = Math.max(...commands.map(({ left }) => left.length)) + 2;
  for (const { left, right } of commands) lines.push(...beside(left.padEnd(width), right));
  lines.push('', 'Options, each also as SYSMON_NAME in the environment:', '');
  for (const row of Object.values(program.options)) {
    lines.push(`  --${row.name}${row.placeholder === undefined ? '' : ` ${row.placeholder}`}`);
    lines.push(...indented(helpOf(row), 8));
  }
  lines.push('  --help, -h', '        Print this.', '  --version', '        Print the version.');
  return `${lines.join('\n')}\n`;
}

function helpOf(row: OptionRow<unknown>): string {
  const parts = [row.help];
  if (row.repeatable) parts.push('May be repeated; in the environment commas separate.');
  const standard = row.defaultHelp ?? (row.placeholder === undefined ? undefined : row.default);
  if (standard !== undefined && standard !== '') parts.push(`Default: ${standard}`);
  if (row.commands !== undefined) parts.push(`(${row.commands.join(', ')})`);
  return parts.join(' ');
}

/** The environment file with every option, commented out. */
export function envFileText<R extends OptionRows>(program: Program<R>): string {
  const lines = [
    `# Options of ${program.name}. A line is NAME=VALUE; quotes keep spaces at the ends, nothing else is special.`,
    `# What a flag or the environment sets is not overridden. '${program.name} check' says what is wrong.`,
  ];
  const main = program.commands[0].name;
  for (const row of Object.values(program.options)) {
    // A switch of another command (--json) is for its line; a value of another one (--advertise) is the host's.
    const isOfMain = row.commands === undefined || row.commands.includes(main);
    if (row.name === envFileName || (!isOfMain && row.placeholder === undefined)) continue;
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
