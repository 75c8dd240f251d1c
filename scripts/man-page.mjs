// A manual page out of what a program says with --help, for man(7).

/**
 * `files` and `seeAlso` are lists of [name, words] and of names. Each option of the help begins with two spaces and has its
 * words below it, eight spaces in; each command has them beside it.
 */
export function manPage({ name, version, seconds, help, files, seeAlso }) {
  const [summary, ...rest] = help.trimEnd().split('\n\n');
  const date = new Date(seconds * 1000).toISOString().slice(0, 10);
  const parts = [
    `.TH ${roff(name.toUpperCase())} 1 ${date} "sysmon ${version}" "User Commands"`,
    // Some default values are longer than a line: what stands before them cannot be spread over one.
    '.ad l',
    `.SH NAME\n${roff(name)} \\- ${roff(
      oneLine(summary)
        .split(/(?<=\.) /)[0]
        .replace(/\.$/, ''),
    )}`,
    `.SH SYNOPSIS\n.B ${roff(oneLine(rest[0]).replace(/^Usage: /, ''))}`,
    `.SH DESCRIPTION\n${roff(summary)}`,
    ...rest.slice(1).map(paragraph),
    `.SH FILES\n${files.map(([path, words]) => `.TP\n.I ${roff(path)}\n${roff(words)}`).join('\n')}`,
    `.SH SEE ALSO\n${seeAlso.map(roff).join(',\n')}`,
  ];
  return `${parts.join('\n')}\n`;
}

/** Entries where there are some, and plain text. */
function paragraph(text) {
  if (!/^ {2}\S/m.test(text)) return `.PP\n${roff(text)}`;
  const lines = text.split('\n').map((line) => {
    const command = /^ {2}([a-z]\S*(?: [A-Z]+)*) {2,}(.*)$/.exec(line);
    if (command) return `.TP\n.B ${roff(command[1])}\n${roff(command[2])}`;
    if (/^ {2}\S/.test(line)) return `.TP\n.B ${roff(line.trim())}`;
    return roff(line.trim());
  });
  return lines.join('\n');
}

function oneLine(text) {
  return text.replace(/\s+/g, ' ').trim();
}

/** Nothing of it is a request, an escape or a hyphen that a terminal shows as something else. */
function roff(text) {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(?=[.'])/gm, '\\&');
}
