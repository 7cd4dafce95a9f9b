// What the editor offers: the words of a kick program.
import { type Completion, type CompletionContext, type CompletionResult, snippetCompletion } from "@codemirror/autocomplete";

const beam: Completion[] = [
  { label: "speed", detail: "m/s", info: "Speed of the protons in metres per second.", type: "property" },
  { label: "ratio", detail: "v/c", info: "Speed as a share of that of light.", type: "property" },
  { label: "gamma", info: "The Lorentz factor.", type: "property" },
  { label: "energy", detail: "eV", info: "Energy of one proton in electronvolts.", type: "property" },
  { label: "elapsed", detail: "s", info: "Seconds since launch.", type: "property" },
  { label: "temperature", detail: "K", info: "Of the warmest sector; 0 with the workshop's numbers.", type: "property" },
  { label: "protons", info: "How many circulate; 0 with the workshop's numbers.", type: "property" },
];

const words: Completion[] = [
  { label: "KICK_POWER", detail: "0 to 100", info: "The strength of each kick, unless kick returns another.", type: "constant" },
  snippetCompletion("def kick(turn, beam):\n    return ${KICK_POWER}", { label: "kick", detail: "def kick(turn, beam)", info: "Asked at every kick; returns its power.", type: "function" }),
  { label: "turn", detail: "1, 2, …", info: "Which turn this is.", type: "variable" },
  { label: "beam", info: "What can be known of the beam at this kick.", type: "variable" },
  snippetCompletion('counter("${name}", "${What it counts.}")', { label: "counter", detail: "only goes up", info: "counter(name, help, labels=[…]); then .inc(n, label=…)", type: "class" }),
  snippetCompletion('gauge("${name}", "${What it is.}")', { label: "gauge", detail: "goes up and down", info: "gauge(name, help, labels=[…], fn=…); then .set(x), .inc(), .dec(). fn is called at each scrape.", type: "class" }),
  snippetCompletion('histogram("${name}", "${What is observed.}")', { label: "histogram", detail: "a distribution", info: "histogram(name, help, labels=[…], buckets=[…]); then .observe(x). Without buckets it is a native histogram.", type: "class" }),
  snippetCompletion('summary("${name}", "${What is observed.}")', { label: "summary", detail: "count and sum", info: "summary(name, help, labels=[…]); then .observe(x)", type: "class" }),
  snippetCompletion('info("${name}", "${What it says.}", labels=["${label}"])', { label: "info", detail: "a fact in labels", info: "info(name, help, labels=[…]); then .set(label=…)", type: "class" }),
  snippetCompletion('stateset("${name}", ["${off}", "${on}"])', { label: "stateset", detail: "one of several states", info: "stateset(name, states, help, labels=[…]); then .set(\"on\")", type: "class" }),
  ...["print", "len", "range", "min", "max", "abs", "int", "float", "str", "sorted"].map((label) => ({ label, type: "function" })),
  ...["def", "return", "if", "elif", "else", "for", "while", "in", "not", "and", "or", "True", "False", "None", "pass"].map((label) => ({ label, type: "keyword", boost: -1 })),
];

const methods: Record<string, Completion[]> = {
  counter: [{ label: "inc", detail: "(n=1, label=…)", type: "method" }],
  gauge: [{ label: "set", detail: "(x, label=…)", type: "method" }, { label: "inc", detail: "(n=1)", type: "method" }, { label: "dec", detail: "(n=1)", type: "method" }],
  histogram: [{ label: "observe", detail: "(x, label=…)", type: "method" }],
  summary: [{ label: "observe", detail: "(x, label=…)", type: "method" }],
  info: [{ label: "set", detail: "(label=…)", type: "method" }],
  stateset: [{ label: "set", detail: "(state, label=…)", type: "method" }],
};

/** complete knows the program's words, what beam has, and the methods of metrics that the text defines. */
export function complete(context: CompletionContext): CompletionResult | null {
  const member = context.matchBefore(/\b(\w+)\.\w*/);
  if (member) {
    const name = member.text.slice(0, member.text.indexOf("."));
    const from = member.from + name.length + 1;
    if (name === "beam") return { from, options: beam, validFor: /^\w*$/ };
    const kind = new RegExp(`^\\s*${name}\\s*=\\s*(counter|gauge|histogram|summary|info|stateset)\\(`, "m").exec(context.state.doc.toString())?.[1];
    return kind ? { from, options: methods[kind]!, validFor: /^\w*$/ } : null;
  }
  const word = context.matchBefore(/\w+/);
  if (!word && !context.explicit) return null;
  const defined = [...context.state.doc.toString().matchAll(/^([A-Za-z_]\w*)\s*=/gm)].map((match) => match[1]!);
  const known = new Set(words.map((w) => w.label));
  const own = [...new Set(defined)].filter((name) => !known.has(name)).map((label): Completion => ({ label, type: "variable", boost: 1 }));
  return { from: word?.from ?? context.pos, options: [...own, ...words], validFor: /^\w*$/ };
}
