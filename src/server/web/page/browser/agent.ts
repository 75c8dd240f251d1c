// Charts of a host's page: in the place of the lines that the server has drawn, those that a pointer can read, and live.
import uPlot from 'uplot';

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

const section = document.querySelector<HTMLElement>('.charts');

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

async function run(charts: HTMLElement): Promise<void> {
  const drawn = new Map<string, uPlot>();
  const update = async () => {
    const response = await fetch(`/api/v1/charts/${charts.dataset['agent']}`);
    if (!response.ok) throw new Error(String(response.status));
    const { times, values } = (await response.json()) as Charts;
    for (const figure of charts.querySelectorAll<HTMLElement>('figure')) {
      const name = figure.dataset['chart']!;
      const own = values[name];
      if (own === undefined) continue;
      const plot = drawn.get(name) ?? chart(figure);
      drawn.set(name, plot);
      // What is drawn already says the same in words.
      figure.querySelector(':scope > svg')?.remove();
      plot.setData([times, own]);
      const known = own.filter((value) => value !== null);
      const [least, most] = [Math.min(...known), Math.max(...known)].map(textOf[figure.dataset['unit']!]!);
      figure.querySelector('figcaption span')!.textContent = least === most ? least! : `${least} to ${most}`;
    }
  };
  addEventListener('resize', () => {
    for (const [name, plot] of drawn) {
      const figure = charts.querySelector<HTMLElement>(`figure[data-chart=${name}]`)!;
      plot.setSize({ width: figure.clientWidth, height: 180 });
    }
  });
  const again = async () => {
    // A server that is away has nothing newer: what is drawn stays.
    if (!document.hidden) await update().catch(() => undefined);
    setTimeout(() => void again(), everyMs);
  };
  await again();
}

if (section !== null) void run(section);
