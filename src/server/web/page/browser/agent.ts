// Charts of a host's page: in the place of the lines that the server has drawn, those that a pointer can read, and live.
import uPlot from 'uplot';
import { keepFresh, textAt } from './contact.ts';
import { follow, followHtml } from './follow.ts';

/** What the server sends: see ../agent.ts. */
interface Live {
  /** HTML by the id of its element. */
  readonly parts: Readonly<Record<string, string>>;
  /** The charts without their lines. HTML. */
  readonly figures: string;
  readonly charts: Charts;
}

interface Charts {
  /** Seconds since 1970. */
  readonly times: number[];
  readonly values: Readonly<Record<string, (number | null)[]>>;
}

const everyMs = 10_000;

const scaled = (value: number): string => {
  for (const prefix of ['', 'k', 'M', 'G']) {
    if (Math.abs(value) < 1000)
      return `${value < 10 && prefix !== '' ? value.toFixed(1) : Math.round(value)} ${prefix}`;
    value /= 1000;
  }
  return `${Math.round(value)} T`;
};

const textOf: Readonly<Record<string, (value: number) => string>> = {
  share: (value) => `${Math.round(value * 100)} %`,
  'bytes a second': (value) => `${scaled(value)}B/s`,
  number: (value) => value.toFixed(2),
  celsius: (value) => `${Math.round(value)} °C`,
};

/** `14:05:09`, as this browser's clock has it. */
const timeText = (seconds: number): string => new Date(seconds * 1000).toTimeString().slice(0, 8);

const place = document.querySelector<HTMLElement>('#charts')!;
const drawn = new Map<string, uPlot>();

function chart(figure: HTMLElement): uPlot {
  const style = getComputedStyle(document.documentElement);
  const [ink, line, colour] = [
    getComputedStyle(figure).color,
    style.getPropertyValue('--line'),
    style.getPropertyValue('--chart'),
  ];
  const { unit = 'number' } = figure.dataset;
  const text = textOf[unit] ?? String;
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  return new uPlot(
    {
      width: figure.clientWidth,
      height: 180,
      scales: { y: { range: (_, __, most) => [0, unit === 'share' ? 1 : Math.max(most ?? 0, 1e-9) * 1.05] } },
      axes: [
        { ...axis, size: 30, values: (_, splits) => splits.map((seconds) => timeText(seconds).slice(0, 5)) },
        { ...axis, size: 70, values: (_, splits) => splits.map(text) },
      ],
      series: [
        // What the pointer is over is below the chart, and nothing while it is elsewhere.
        { value: (_, seconds) => (seconds === null ? '' : timeText(seconds)) },
        {
          stroke: colour,
          width: 1.5,
          points: { show: false },
          value: (_, value) => (value === null ? '' : text(value)),
        },
      ],
    },
    [[], []],
    figure,
  );
}

/** The charts that there are: a host gets others when its agent collects something else. */
function arrange(html: string): void {
  const fresh = place.cloneNode(false) as Element;
  fresh.innerHTML = html;
  const section = place.querySelector('.charts');
  const next = fresh.querySelector('.charts');
  if (section === null || next === null) {
    place.replaceChildren(...fresh.childNodes);
    drawn.clear();
    return;
  }
  const known = new Map(figuresOf(section).map((figure) => [figure.dataset['chart']!, figure]));
  for (const [at, figure] of figuresOf(next).entries()) {
    const name = figure.dataset['chart']!;
    const own = known.get(name);
    known.delete(name);
    const there = section.children[at] ?? null;
    if (own === undefined || own !== there) section.insertBefore(own ?? figure, there);
    if (own !== undefined) follow(own.querySelector('figcaption')!, figure.querySelector('figcaption')!);
  }
  for (const [name, figure] of known) {
    figure.remove();
    drawn.delete(name);
  }
}

const figuresOf = (parent: Element): HTMLElement[] => [...parent.querySelectorAll<HTMLElement>('figure')];

function draw({ times, values }: Charts): void {
  for (const figure of figuresOf(place)) {
    const name = figure.dataset['chart']!;
    const own = values[name];
    if (own === undefined) continue;
    const plot = drawn.get(name) ?? chart(figure);
    drawn.set(name, plot);
    // What is drawn already says the same in words.
    figure.querySelector(':scope > svg')?.remove();
    plot.setData([times, own]);
  }
}

addEventListener('resize', () => {
  for (const [name, plot] of drawn) {
    const figure = place.querySelector<HTMLElement>(`figure[data-chart=${name}]`)!;
    plot.setSize({ width: figure.clientWidth, height: 180 });
  }
});

keepFresh(async (signal) => {
  const live = JSON.parse(await textAt(`/live/${place.dataset['agent']}${location.search}`, signal)) as Live;
  for (const [id, html] of Object.entries(live.parts)) followHtml(document.getElementById(id)!, html);
  arrange(live.figures);
  draw(live.charts);
}, everyMs);
