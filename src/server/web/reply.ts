/** An answer that is short and whole. */
export interface Reply {
  readonly code: number;
  /** Without a charset, which is utf-8. */
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export const text = (code: number, body: string): Reply => ({ code, type: 'text/plain', body });

export const json = (value: unknown): Reply => ({
  code: 200,
  type: 'application/json',
  body: `${JSON.stringify(value, undefined, 2)}\n`,
  headers: { 'Cache-Control': 'no-store' },
});
