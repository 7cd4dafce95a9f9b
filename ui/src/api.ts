// What the server tells, and how it is asked. Names are those of its JSON.

export interface State {
  time: number;
  mode: "compatible" | "physics";
  status: "stopped" | "running" | "success" | "overloaded" | "timeout";
  code: number;
  run: number;
  elapsed: number;
  angle: number;
  omega: number;
  speed: number;
  ratio: number;
  gamma: number;
  energy: number;
  power: number;
  kick: number;
  kicks: number;
  turns: number;
  temperature: number;
  protons: number;
  sectors?: number[];
  warp: number;
  slow?: boolean;
  totals: { kicks: number; turns: number; runs: Record<string, number> };
  result?: { run: number; outcome: string; kicks: number; turns: number; duration_seconds: number; energy: number; ratio: number };
}

export interface Problem {
  file: string;
  line: number;
  column: number;
  message: string;
}

export interface Program {
  file: string;
  path: string;
  source: string;
  revision: string;
  running: string;
  power: number;
  original: string;
  problem: Problem | null;
  output: string;
}

export interface Sample {
  metric: string;
  type: string;
  unit?: string;
  labels?: Record<string, string>;
  value?: number;
  state?: string;
  count?: number;
  sum?: number;
  buckets?: { le: string; count: number }[];
}

export interface Own {
  time: number;
  series: Sample[];
  more?: number;
}

export interface History {
  time: number[] | null;
  ratio: number[];
  energy: number[];
  status: number[];
  power: number[];
  temperature: number[];
  own: { metric: string; labels: Record<string, string> | null; points: [number, number][] }[] | null;
}

export interface Injections {
  available: boolean;
  injections: { kind: string; running: boolean; cpus: number; wanted: number; cpuSeconds: number; bytes: number; cgroup?: string; duration: number; remaining: number; error?: string }[];
}

export interface KernelView {
  available: boolean;
  loading: boolean;
  reason?: string;
  programs: { name: string; help: string; up: boolean; reason?: string }[];
  app: { kicks: number; cpuSeconds: number; residentBytes: number };
  seen: number | null;
  series: Sample[];
  more?: number;
  error?: string;
}

export interface Events {
  state: State;
  program: Program;
  steps: string[];
  own: Own;
  injections: Injections;
}

/** Refused is what the server said no with. */
export class Refused extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** ask sends a request and returns the JSON that answers it. */
export async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  const response = await fetch(path, init);
  const text = await response.text();
  if (response.ok) return JSON.parse(text) as T;
  let message = text;
  try {
    message = (JSON.parse(text) as { error: string }).error;
  } catch {
    // It is no JSON: something else answered.
  }
  throw new Refused(response.status, message);
}

type Handlers = { [Name in keyof Events]: (payload: Events[Name]) => void };

/** again is after how many milliseconds follow asks again where the browser gave up. */
const again = 5000;

/** follow calls a handler at each event. The browser connects again by itself, but not if the server refused, as it does if too many pages are open. */
export function follow(handlers: Handlers, connected: (yes: boolean) => void): void {
  const source = new EventSource("/api/events");
  source.onopen = () => connected(true);
  source.onerror = () => {
    connected(false);
    if (source.readyState !== EventSource.CLOSED) return;
    source.close();
    window.setTimeout(() => follow(handlers, connected), again);
  };
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => (handle as (payload: unknown) => void)(JSON.parse((event as MessageEvent<string>).data)));
  }
}
