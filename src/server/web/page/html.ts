/** Text in HTML, between tags or in an attribute with quotes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? '');
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** What is not known is no zero. */
export const optional = (html: string | undefined): string => html ?? '<span class=soft>–</span>';

/** 0.423 → `42 %` */
export const percentText = (share: number): string => `${Math.round(share * 100)} %`;

/** 1234567 → `1.2 MB/s`: powers of 1000, as lines and disks are sold. */
export const rateText = (bytesPerSecond: number): string => `${scaledText(bytesPerSecond)}B/s`;

/** 1234567 → `1.2 MB` */
export const sizeText = (bytes: number): string => `${scaledText(bytes)}B`;

/** A size or a rate as it is shown: what looks the same is equal. */
export function roundedSize(value: number): number {
  const { power, scaled } = scaledOf(value);
  return scaled * 1000 ** power;
}

function scaledText(value: number): string {
  const { power, scaled } = scaledOf(value);
  return `${scaled < 10 && power > 0 ? scaled.toFixed(1) : scaled} ${prefixes[power]}`;
}

function scaledOf(value: number): { readonly power: number; readonly scaled: number } {
  const power = Math.min(prefixes.length - 1, value < 1000 ? 0 : Math.floor(Math.log10(value) / 3));
  const scaled = value / 1000 ** power;
  return { power, scaled: scaled < 10 && power > 0 ? Math.round(scaled * 10) / 10 : Math.round(scaled) };
}

const prefixes = ['', 'k', 'M', 'G', 'T', 'P'] as const;

/** A column of a table. */
export interface Column {
  readonly title: string;
  /** Numbers are aligned on the right. */
  readonly isNumber?: boolean;
}

/** A table whose cells are HTML. `label`: what it is of, for screen readers. */
export function tableHtml(label: string, columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const classes = columns.map(({ isNumber }) => (isNumber === true ? ' class=n' : ''));
  const head = columns.map(({ title }, at) => `<th scope=col${classes[at]}>${escapeHtml(title)}`).join('');
  const body = rows.map((cells) => `<tr>${cells.map((cell, at) => `<td${classes[at]}>${cell}`).join('')}\n`).join('');
  return `<div class=wide role=region aria-label="${escapeHtml(label)}" tabindex=0><table><thead><tr>${head}<tbody>\n${body}</table></div>\n`;
}
