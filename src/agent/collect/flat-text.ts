import { nameOf, pathOf } from './proc/names.ts';

/**
 * The same text in one piece, to be kept: V8 keeps one that was put together as its parts, which take three times the memory.
 */
export function flatText(text: string): string {
  const path = pathOf(text);
  return typeof path === 'string' ? Buffer.from(text).toString() : nameOf(path);
}
