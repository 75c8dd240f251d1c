import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** `FILE: LINK` for each link of the documents in a folder that leads to no file there. */
export function deadLinks(folder: string): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.md'))
    .flatMap((file) => {
      const links = [...readFileSync(join(folder, file), 'utf8').matchAll(/\]\(([^)\s#]+)/g)].map(([, link]) => link!);
      return links
        .filter((link) => !/^[a-z]+:/.test(link) && !existsSync(join(folder, link)))
        .map((link) => `${file}: ${link}`);
    });
}
