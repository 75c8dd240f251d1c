/**
 * What a failed scrape says about the answer: it did not come, or not in time; it was too large; or something of one agent in
 * it was refused. The words are Prometheus's or VictoriaMetrics', and quote what agents and URLs say: names and values of
 * labels, which may be any words. https://github.com/prometheus/prometheus/blob/v2.42.0/scrape/scrape.go
 */
export type RefusalReason = 'line' | 'size' | 'agent';

export function refusalReason(text: string): RefusalReason {
  const own = withoutQuotes(text);
  if (labelReasons.test(own)) return 'agent';
  if (sizeReasons.test(own)) return 'size';
  return lineReasons.test(own) ? 'line' : 'agent';
}

/** Without what it quotes; the text may have been cut within a quote. A metric's name stands in parentheses without quotes. */
const withoutQuotes = (text: string): string =>
  text.replace(/"(?:[^"\\]|\\.)*(?:"|\\?$)/gs, '""').replace(/\([^()]*(?:\)|$)/g, '()');

const labelReasons = /\blabel_(?:name_length_|value_length_)?limit\b/;
const sizeReasons = /sample.?limit|body.?size|bucket.?limit|scrape.?size|too (?:large|big|long)/i;
// A proxy or a slow host loses small ones as well. Go names the request where no answer has begun.
const lineReasons =
  /^(?:Get|Post) ""|deadline|time.?out|EOF|reset by peer|refused|canceled|broken pipe|returned HTTP status/i;
