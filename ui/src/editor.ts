// The code view: an editor of the program's file.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { type Diagnostic, lintGutter, setDiagnostics } from "@codemirror/lint";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { ask, type Program, Refused } from "./api";
import { complete } from "./complete";
import { get, make, say } from "./dom";

const highlight = HighlightStyle.define([
  { tag: [tags.keyword, tags.controlKeyword, tags.definitionKeyword, tags.operatorKeyword], class: "code-keyword" },
  { tag: [tags.string], class: "code-string" },
  { tag: [tags.number, tags.bool, tags.null], class: "code-number" },
  { tag: [tags.comment], class: "code-comment" },
  { tag: [tags.function(tags.variableName), tags.function(tags.definition(tags.variableName))], class: "code-function" },
  { tag: [tags.propertyName], class: "code-property" },
]);

export class Editor {
  private readonly view: EditorView;
  private program: Program | null = null;
  /** base is the file's revision that the text was made from. */
  private base = "";
  private readonly save = get<HTMLButtonElement>("save");
  private readonly difference = get("difference");
  private readonly saved = get("saved");

  constructor() {
    const nonce = document.querySelector<HTMLMetaElement>("meta[name=nonce]")?.content ?? "";
    this.view = new EditorView({
      parent: get("editor"),
      state: EditorState.create({
        extensions: [
          EditorView.cspNonce.of(nonce),
          lineNumbers(), highlightActiveLine(), highlightActiveLineGutter(), history(), drawSelection(), indentOnInput(), indentUnit.of("    "),
          bracketMatching(), closeBrackets(), python(), syntaxHighlighting(highlight), lintGutter(),
          autocompletion({ override: [complete] }),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ "aria-label": "Kick program", "aria-describedby": "editor-hint", spellcheck: "false", autocapitalize: "off", autocorrect: "off" }),
          keymap.of([{ key: "Mod-s", preventDefault: true, run: () => (void this.store(), true) }, ...closeBracketsKeymap, ...completionKeymap, ...defaultKeymap, ...historyKeymap, indentWithTab]),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) this.changed();
          }),
        ],
      }),
    });
    this.save.addEventListener("click", () => void this.store());
    get("reset").addEventListener("click", () => void this.reset());
    get("diff").addEventListener("click", () => void this.toggleDiff());
    get("take").addEventListener("click", () => this.take());
    get("keep").addEventListener("click", () => this.keep());
    window.addEventListener("beforeunload", (event) => {
      if (this.dirty()) event.preventDefault();
    });
  }

  text(): string {
    return this.view.state.doc.toString();
  }

  private dirty(): boolean {
    return this.program !== null && this.text() !== this.program.source;
  }

  /** show takes up what the server says of the program. Text that was not saved stays. */
  show(program: Program): void {
    const before = this.program;
    const edited = this.dirty();
    this.program = program;
    say(get("path"), program.path);
    if (!before || (!edited && program.source !== this.text())) this.take();
    else if (program.source === this.text()) this.base = program.revision;
    get("changed").hidden = !(this.dirty() && this.base !== program.revision);
    this.mark(program);
    const output = get("output");
    output.hidden = program.output === "";
    say(output, program.output);
    this.changed();
    if (!this.difference.hidden) void this.loadDiff();
  }

  /** put changes the text as somebody who types would, so that it can be undone. */
  put(text: string): void {
    this.replace(text);
    this.view.focus();
  }

  private replace(text: string): void {
    const before = this.text();
    if (text === before) return;
    // Only what differs, so that the cursor stays where it is.
    let start = 0;
    while (start < Math.min(before.length, text.length) && before[start] === text[start]) start++;
    let end = 0;
    while (end < Math.min(before.length, text.length) - start && before[before.length - 1 - end] === text[text.length - 1 - end]) end++;
    this.view.dispatch({ changes: { from: start, to: before.length - end, insert: text.slice(start, text.length - end) } });
  }

  private take(): void {
    if (!this.program) return;
    this.replace(this.program.source);
    this.base = this.program.revision;
    get("changed").hidden = true;
    this.changed();
  }

  private keep(): void {
    if (this.program) this.base = this.program.revision;
    get("changed").hidden = true;
    this.view.focus();
  }

  private changed(): void {
    const dirty = this.dirty();
    // What is wrong nowhere in the text may be gone when it is written again, as when the file is gone.
    this.save.disabled = !dirty && this.program?.problem?.line !== 0;
    if (dirty) say(this.saved, "not saved");
    else if (this.saved.textContent === "not saved") say(this.saved, "");
  }

  private mark({ problem, running, revision }: Program): void {
    const box = get("problem");
    const marks: Diagnostic[] = [];
    if (problem) {
      const place = problem.line > 0 ? `Line ${problem.line}: ` : "";
      const consequence = running !== revision ? " The last good program keeps running." : problem.line > 0 ? " KICK_POWER counts instead." : "";
      say(box, `${place}${problem.message}.${consequence}`);
      const doc = this.view.state.doc;
      if (problem.line > 0 && problem.line <= doc.lines && !this.dirty()) {
        const line = doc.line(problem.line);
        const from = Math.min(line.from + Math.max(problem.column - 1, 0), line.to);
        const word = this.view.state.wordAt(from);
        marks.push({ from: from === line.to ? line.from : from, to: Math.max(word?.to ?? line.to, from), severity: "error", message: problem.message });
      }
    }
    box.hidden = problem === null;
    if (!problem) say(box, "");
    this.view.dispatch(setDiagnostics(this.view.state, marks));
  }

  async store(): Promise<void> {
    if (!this.program) return;
    try {
      const program = await ask<Program>("PUT", "/api/program", { source: this.text(), base: this.base });
      this.base = program.revision;
      this.show(program);
      say(this.saved, program.problem ? "saved, but broken" : "saved, and running");
    } catch (error) {
      if (error instanceof Refused && error.status === 409) get("changed").hidden = false;
      say(this.saved, error instanceof Error ? error.message : String(error));
    }
  }

  private async reset(): Promise<void> {
    try {
      const program = await ask<Program>("POST", "/api/program/reset");
      this.program = program;
      this.take();
      this.show(program);
      say(this.saved, "back to the original (Ctrl+Z brings yours back)");
    } catch (error) {
      say(this.saved, error instanceof Error ? error.message : String(error));
    }
  }

  private async toggleDiff(): Promise<void> {
    this.difference.hidden = !this.difference.hidden;
    get("diff").setAttribute("aria-expanded", String(!this.difference.hidden));
    if (!this.difference.hidden) await this.loadDiff();
  }

  private async loadDiff(): Promise<void> {
    try {
      const text = await (await fetch("/api/program/diff")).text();
      if (text === "") {
        this.difference.replaceChildren("The file is the original.");
        return;
      }
      this.difference.replaceChildren(...text.trimEnd().split("\n").slice(2).filter((line) => !line.startsWith("@@")).map((line) => {
        const kind = line.startsWith("+") ? "ins" : line.startsWith("-") ? "del" : "span";
        return make(kind, {}, `${line}\n`);
      }));
    } catch (error) {
      this.difference.replaceChildren(error instanceof Error ? error.message : String(error));
    }
  }
}
