/** The text of each cell of a table's rows, as the page's tables end them. */
export function cellsOf(rows: string): string[][] {
  const lines = rows.trim().split('\n');
  return lines.map((row) => {
    const cells = row.split('<td').slice(1);
    return cells.map((cell) => `<td${cell}`.replace(/<[^>]+>/g, '').trim());
  });
}
