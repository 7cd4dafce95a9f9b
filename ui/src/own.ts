// The metrics of the user's own program: each appears as a chart by itself.
import type uPlot from "uplot";
import { type History, type Own, type Sample } from "./api";
import { Chart } from "./charts";
import { get, make, say } from "./dom";
import { compact, ofUnit, plain } from "./quantity";

const mostCharts = 24;
const mostLines = 8;
const colors = ["accent", "beam", "success", "danger", "warm", "violet", "cold", "muted"];

interface Card {
  element: HTMLElement;
  show(series: Sample[]): void;
  remove(): void;
}

type Points = [number, number][];

const labelsOf = (sample: { labels?: Record<string, string> | null }) => sample.labels ?? {};
const keyOf = (metric: string, labels: Record<string, string>) => `${metric} ${JSON.stringify(Object.entries(labels).sort())}`;

function nameOf(labels: Record<string, string>): string {
  return Object.entries(labels).map(([name, value]) => `${name}=${value}`).join(" ");
}

export class OwnMetrics {
  private readonly box = get("own");
  private readonly empty = this.box.firstElementChild as HTMLElement;
  private readonly cards = new Map<string, Card>();
  private points = new Map<string, Points>();
  private latest: Own | null = null;
  names = new Set<string>();

  begin(history: History): void {
    this.points = new Map((history.own ?? []).map((t) => [keyOf(t.metric, labelsOf(t)), t.points]));
    if (this.latest) this.show(this.latest);
  }

  show(own: Own): void {
    this.latest = own;
    const groups = new Map<string, Sample[]>();
    for (const sample of own.series) {
      const group = groups.get(sample.metric);
      if (group) group.push(sample);
      else groups.set(sample.metric, [sample]);
      this.note(sample, own.time);
    }
    this.names = new Set(groups.keys());
    const ids = new Set<string>();
    let fresh = false;
    for (const [metric, series] of [...groups].slice(0, mostCharts)) {
      const type = series[0]!.type;
      const id = `${metric} ${type}`;
      ids.add(id);
      let card = this.cards.get(id);
      if (!card) {
        card = this.make(metric, type);
        this.cards.set(id, card);
        fresh = true;
      }
      card.show(series);
    }
    // In the program's order, wherever new ones came in.
    if (fresh) this.box.append(...[...ids].map((id) => this.cards.get(id)!.element));
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue;
      card.remove();
      this.cards.delete(id);
    }
    this.empty.hidden = groups.size > 0;
  }

  private note(sample: Sample, time: number): void {
    const value = sample.value ?? sample.count;
    if (value === undefined) return;
    const key = keyOf(sample.metric, labelsOf(sample));
    const points = this.points.get(key) ?? [];
    if ((points.at(-1)?.[0] ?? 0) < time) points.push([time, value]);
    if (points.length > 180) points.splice(0, points.length - 120);
    this.points.set(key, points);
  }

  private make(metric: string, type: string): Card {
    if (type === "histogram") return new Bars(metric);
    if (type === "counter" || type === "gauge" || type === "summary") return new Lines(metric, type, (sample) => this.points.get(keyOf(sample.metric, labelsOf(sample))) ?? []);
    return new Words(metric, type);
  }
}

/** Lines charts counters, gauges, and how often summaries observed. */
class Lines implements Card {
  private readonly chart: Chart;
  private readonly legend = make("p", { class: "legend" });
  readonly element: HTMLElement;

  constructor(metric: string, type: string, private readonly pointsOf: (sample: Sample) => Points) {
    this.chart = new Chart({ title: metric, height: 104, colors, format: compact, stepped: type === "counter" });
    this.element = this.chart.element;
    this.element.dataset.metric = metric;
    this.element.append(this.legend);
  }

  show(series: Sample[]): void {
    const shown = series.slice(0, mostLines);
    const times = [...new Set(shown.flatMap((sample) => this.pointsOf(sample).map((point) => point[0])))].sort((a, b) => a - b);
    const lines = shown.map((sample) => {
      const values = new Map(this.pointsOf(sample));
      return times.map((time) => values.get(time) ?? null);
    });
    const first = series[0]!;
    const text = first.sum !== undefined && first.count ? `${plain(first.count)} × ${ofUnit(first.sum / first.count, first.unit)}` : plain(first.value ?? first.count ?? 0);
    this.chart.show([times.map((t) => t / 1000), ...lines] as uPlot.AlignedData, series.length === 1 ? text : `${series.length} series`);
    legend(this.legend, series, (sample) => plain(sample.value ?? sample.count ?? 0));
  }

  remove(): void {
    this.chart.remove();
  }
}

/** legend names the lines of a chart that has several. */
function legend(element: HTMLElement, series: Sample[], text: (sample: Sample) => string): void {
  const labelled = series.some((sample) => nameOf(labelsOf(sample)) !== "");
  element.hidden = !labelled;
  if (!labelled) return;
  const entries = series.slice(0, mostLines).map((sample, i) => make("span", { "data-color": colors[i % colors.length]! }, `${nameOf(labelsOf(sample))} ${text(sample)}`));
  if (series.length > mostLines) entries.push(make("span", {}, `and ${series.length - mostLines} more`));
  element.replaceChildren(...entries);
}

const svg = "http://www.w3.org/2000/svg";

/** Bars draws the distribution in a histogram: one bar for each bucket that has counts, side by side for each series. */
class Bars implements Card {
  private readonly value = make("span", { class: "chart-value" });
  private readonly box = make("div", { class: "bars" });
  private readonly scale = make("p", { class: "scale" });
  private readonly legend = make("p", { class: "legend" });
  readonly element: HTMLElement;

  constructor(metric: string) {
    this.element = make("figure", { class: "chart", "data-metric": metric }, make("figcaption", {}, make("span", {}, metric), this.value), this.box, this.scale, this.legend);
  }

  show(series: Sample[]): void {
    const shown = series.slice(0, mostLines);
    const bounds = [...new Set(shown.flatMap((s) => (s.buckets ?? []).map((b) => b.le)))].map(Number).sort((a, b) => a - b);
    const count = series.reduce((sum, s) => sum + (s.count ?? 0), 0);
    const sum = series.reduce((sum, s) => sum + (s.sum ?? 0), 0);
    say(this.value, count ? `${plain(count)} × ${plain(sum / count)}` : "nothing observed");
    const counts = shown.map((s) => new Map((s.buckets ?? []).map((b) => [Number(b.le), b.count])));
    const highest = Math.max(1, ...counts.flatMap((c) => [...c.values()]));
    const width = 100 / Math.max(bounds.length, 1);
    const picture = document.createElementNS(svg, "svg");
    picture.setAttribute("viewBox", "0 0 100 40");
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", bounds.map((bound) => `up to ${plain(bound)}: ${counts.reduce((n, c) => n + (c.get(bound) ?? 0), 0)}`).join("; "));
    bounds.forEach((bound, i) => counts.forEach((c, j) => {
      const n = c.get(bound) ?? 0;
      if (!n) return;
      const bar = document.createElementNS(svg, "rect");
      const part = width * 0.84 / counts.length;
      const height = 38 * n / highest;
      bar.setAttribute("x", String(i * width + width * 0.08 + j * part));
      bar.setAttribute("y", String(40 - height));
      bar.setAttribute("width", String(part * 0.94));
      bar.setAttribute("height", String(height));
      bar.setAttribute("data-color", colors[j % colors.length]!);
      const title = document.createElementNS(svg, "title");
      title.textContent = `${n} up to ${plain(bound)} ${nameOf(labelsOf(shown[j]!))}`;
      bar.append(title);
      picture.append(bar);
    }));
    this.box.replaceChildren(picture);
    const edge = (bound?: number) => (bound === undefined ? "" : `≤ ${bound === Infinity ? "∞" : plain(bound)}`);
    this.scale.replaceChildren(make("span", {}, edge(bounds[0])), make("span", {}, bounds.length > 1 ? edge(bounds.at(-1)) : ""));
    legend(this.legend, series, (sample) => plain(sample.count ?? 0));
  }

  remove(): void {
    this.element.remove();
  }
}

/** Words shows infos and statesets. */
class Words implements Card {
  private readonly box = make("div", { class: "words" });
  readonly element: HTMLElement;

  constructor(metric: string, private readonly type: string) {
    this.element = make("figure", { class: "chart", "data-metric": metric }, make("figcaption", {}, make("span", {}, metric), make("span", { class: "chart-value" }, type)), this.box);
  }

  show(series: Sample[]): void {
    this.box.replaceChildren(...series.slice(0, mostLines).map((sample) => make("code", {}, this.type === "stateset" ? `${nameOf(labelsOf(sample))} ${sample.state ?? ""}`.trim() : nameOf(labelsOf(sample)))));
  }

  remove(): void {
    this.element.remove();
  }
}
