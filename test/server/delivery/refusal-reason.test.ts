import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { refusalReason } from '../../../src/server/delivery/refusal-reason.ts';

// Words of Prometheus 2.42 and 3.5, and of VictoriaMetrics 1.112.

const words = ['EOF', 'timeout', 'refused', 'deadline', 'sample_limit', 'too_long', 'label_limit', 'body_size'];

test('what a failed scrape says is of the line, of the size, or of one agent', () => {
  for (const [text, reason] of [
    ['Get "http://127.0.0.1:9733/metrics?scraper=a": context deadline exceeded', 'line'],
    ['Get "http://h/metrics": EOF', 'line'],
    ['Get "http://h/metrics": dial tcp 192.0.2.1:9733: connect: connection refused', 'line'],
    ['Get "http://h/metrics": dial tcp: lookup h: no such host', 'line'],
    ['read tcp 192.0.2.1:4000->192.0.2.2:9733: read: connection reset by peer', 'line'],
    ['unexpected EOF', 'line'],
    ['context deadline exceeded', 'line'],
    ['server returned HTTP status 502 Bad Gateway', 'line'],
    ['sample limit exceeded', 'size'],
    ['body size limit exceeded', 'size'],
    ['histogram bucket limit exceeded', 'size'],
    ['the response from "http://h/metrics" exceeds -promscrape.maxScrapeSize=16777216', 'size'],
    ['the response from "http://h/metrics" exceeds sample_limit=600; reduce the sample count', 'size'],
    ['label_limit exceeded (metric: up_total, number of labels: 40, limit: 30)', 'agent'],
    ['too old sample', 'agent'],
    ['invalid metric name or label names', 'agent'],
  ] as const) {
    assert.equal(refusalReason(text), reason, text);
  }
});

test('whatever an agent or a URL is called, the reason stays what it is', () => {
  for (const word of words) {
    for (const [text, reason] of [
      [
        `label_value_length_limit exceeded (metric: ${word}, label name: ${word}, value: "${word}xx", length: 303, limit: 200)`,
        'agent',
      ],
      [`label_name_length_limit exceeded (metric: ${word}, label name: ${word}, length: 90, limit: 80)`, 'agent'],
      // Cut, as what is kept of it is.
      [`label_value_length_limit exceeded (metric: ${word}, label name: i, value: "\\"${word}xx`, 'agent'],
      [`label_limit exceeded (metric: ${word}`, 'agent'],
      [`expected a valid start token, got "INVALID" ("${word}") while parsing: "${word}"`, 'agent'],
      [`Get "http://${word}/metrics?scraper=${word}": EOF`, 'line'],
      [`the response from "http://${word}" exceeds sample_limit=600`, 'size'],
    ] as const) {
      assert.equal(refusalReason(text), reason, text);
    }
  }
});

test('no value of a label changes the reason, quoted as Go quotes it and cut anywhere', () => {
  const value = fc.array(fc.constantFrom(...words, '"', '\\', '(', ')', ' ', 'é')).map((parts) => parts.join(''));
  fc.assert(
    fc.property(value, fc.nat(200), (text, cut) => {
      const prefix = 'label_value_length_limit exceeded (metric: e, label name: i, value: ';
      const whole = `${prefix}${JSON.stringify(text)}, length: 303, limit: 200)`;
      assert.equal(refusalReason(whole.slice(0, prefix.length + cut)), 'agent');
      assert.equal(refusalReason(`cannot parse ${JSON.stringify(text)}`.slice(0, 13 + cut)), 'agent');
    }),
  );
});
