// Prometheus's text format, as both sides write it; text-parser.ts reads it.
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details

export function escapeLabelValue(value: string): string {
  return /[\\"\n]/.test(value) ? escapeHelp(value).replaceAll('"', '\\"') : value;
}

export function escapeHelp(help: string): string {
  return help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}

/** The shortest digits that read back as the same double. */
export function numberText(value: number): string {
  if (value === Infinity) return '+Inf';
  if (value === -Infinity) return '-Inf';
  return String(value);
}
