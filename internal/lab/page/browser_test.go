package page_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/test/browser"
)

// visitor is somebody at the page. Failures end the test.
type visitor struct {
	t    *testing.T
	ctx  context.Context
	page *browser.Page
}

func (v *visitor) must(err error) {
	v.t.Helper()
	if err != nil {
		v.picture("failure", true)
		v.t.Fatal(err)
	}
}

func (v *visitor) open(url string, width, height int, scheme string) {
	v.t.Helper()
	v.must(v.page.Appear(v.ctx, width, height, scheme))
	v.must(v.page.Open(v.ctx, url))
	v.wait(`document.querySelector("#launch").disabled === false && document.querySelector(".cm-content")?.textContent !== ""`)
}

func (v *visitor) wait(expression string) {
	v.t.Helper()
	v.must(v.page.Wait(v.ctx, expression))
}

// reads waits until the text of an element contains something.
func (v *visitor) reads(selector, text string) {
	v.t.Helper()
	v.wait(fmt.Sprintf("document.querySelector(%q)?.textContent.includes(%q)", selector, text))
}

// ended waits for the end of a run, however quick it is.
func (v *visitor) ended(run int, outcome lab.Outcome) {
	v.t.Helper()
	v.wait(fmt.Sprintf("document.body.dataset.run === '%d' && document.body.dataset.outcome === %q", run, outcome))
}

func (v *visitor) click(selector string) {
	v.t.Helper()
	v.must(v.page.Click(v.ctx, selector))
}

func (v *visitor) press(key browser.Key) {
	v.t.Helper()
	v.must(v.page.Press(v.ctx, key))
}

// tab goes on until an element has the focus, as somebody without a mouse does.
func (v *visitor) tab(selector string) { v.t.Helper(); v.walk(selector, false) }

// back goes the other way.
func (v *visitor) back(selector string) { v.t.Helper(); v.walk(selector, true) }

func (v *visitor) walk(selector string, back bool) {
	v.t.Helper()
	for range 80 {
		v.press(browser.Key{Name: "Tab", Code: 9, Shift: back})
		var there bool
		v.must(v.page.Evaluate(v.ctx, fmt.Sprintf("document.activeElement.matches(%q)", selector), &there))
		if there {
			return
		}
	}
	v.t.Fatalf("Tab never reaches %s", selector)
}

// rewrite replaces the program in the editor and saves, by keys.
func (v *visitor) rewrite(source string) {
	v.t.Helper()
	v.press(browser.Key{Name: "a", Code: 65, Control: true})
	v.must(v.page.Type(v.ctx, source))
	v.press(browser.Key{Name: "s", Code: 83, Control: true})
}

// leaveEditor: Tab is the editor's until Esc gives it back, for two seconds. The first Esc may only close what the editor offers.
func (v *visitor) leaveEditor() {
	v.t.Helper()
	for range 10 {
		v.press(browser.Key{Name: "Escape", Code: 27})
		v.press(browser.Key{Name: "Tab", Code: 9})
		var outside bool
		v.must(v.page.Evaluate(v.ctx, `!document.activeElement.matches(".cm-content")`, &outside))
		if outside {
			return
		}
	}
	v.t.Fatal("the keyboard never leaves the editor")
}

// picture writes a picture of the page if somebody wants to look: KAON_PICTURES names a directory.
func (v *visitor) picture(name string, whole bool) {
	v.t.Helper()
	directory := os.Getenv("KAON_PICTURES")
	if directory == "" {
		return
	}
	var err error
	if whole {
		// The bar at the top stays where the view is.
		err = v.page.Evaluate(v.ctx, "scrollTo({ top: 0, behavior: 'instant' })", nil)
	}
	var png []byte
	if err == nil {
		png, err = v.page.Picture(v.ctx, whole)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(directory, name+".png"), png, 0o644)
	}
	if err != nil {
		v.t.Log(err)
	}
}

func newVisitor(t *testing.T) *visitor {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	b, err := browser.Start()
	if errors.Is(err, browser.ErrMissing) {
		t.Skip("needs chromium: apt-get install chromium")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	page, err := b.NewPage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, ctx, page}
}

var enter = browser.Key{Name: "Enter", Code: 13, Text: "\r"}

// The way through the workshop in a real browser: launch, time out, edit, win, overload, count kicks, see them.
func TestWorkshopInBrowser(t *testing.T) {
	v := newVisitor(t)
	l := start(t, lab.Compatible, 25)
	v.open(l.url, 1280, 900, "light")
	v.reads("#status", "Ready")
	v.reads("#guide-title", "Launch")
	v.picture("1-ready", true)

	// 27 is too weak.
	v.click("#launch")
	v.ended(1, lab.TimedOut)
	v.reads("#status", "Timeout")
	v.reads("#guide-title", "Change the code")

	// 40 is enough. The file on disk is what was typed.
	v.click(".cm-content")
	v.rewrite("KICK_POWER = 40\n")
	v.reads("#saved", "saved, and running")
	if source, err := os.ReadFile(l.program); err != nil || string(source) != "KICK_POWER = 40\n" {
		t.Errorf("the file has %q (%v)", source, err)
	}
	v.click("#launch")
	v.reads("#status", "Success")
	v.picture("2-success", true)
	v.ended(2, lab.Succeeded)

	// 50 is too much.
	v.click(".cm-content")
	v.rewrite("KICK_POWER = 50\n")
	v.reads("#saved", "saved, and running")
	v.click("#launch")
	v.ended(3, lab.Overload)
	v.reads("#status", "Overloaded")
	v.picture("3-overload", true)

	// kick_count, as the page suggests it; it appears as a chart by itself.
	v.reads("#guide-title", "A metric of your own")
	v.click("#guide-put")
	v.reads(".cm-content", "kick_count.inc()")
	v.click("#save")
	v.reads("#saved", "saved, and running")
	v.click("#launch")
	v.ended(4, lab.Succeeded)
	// n kicks of 40 reach the speed of light when 1 + n*40/50 radians per second are 12: 14. Then the beam goes on to be kicked.
	kicks := l.session.Lab().Totals().Kicks
	v.wait(`Number(document.querySelector("figure[data-metric=kick_count_total] .chart-value")?.textContent) >= 14`)
	v.wait(`document.querySelector("figure[data-metric=kick_count_total] canvas")?.width > 0`)
	v.wait(`/^kick_count_total [1-9]/m.test(document.querySelector("#raw").textContent)`)
	if kicks < 14 {
		t.Errorf("the accelerator has %d kicks", kicks)
	}

	// A distribution, with a label.
	v.reads("#guide-title", "A distribution")
	v.click("#guide-put")
	v.click("#save")
	v.reads("#saved", "saved, and running")
	v.click("#launch")
	v.ended(5, lab.Succeeded)
	v.wait(`document.querySelector("figure[data-metric=kick_speed_ratio] rect")`)
	v.reads("#guide-title", "A label")
	v.click("#guide-put")
	v.click("#save")
	v.reads("#saved", "saved, and running")
	v.click("#launch")
	v.ended(6, lab.Succeeded)
	v.reads("figure[data-metric=kick_speed_ratio] .legend", "phase=late")
	v.picture("4-own", true)

	// A mistake is shown on its line; what is good keeps running.
	v.click(".cm-content")
	v.rewrite("KICK_POWER = 30\n\ndef kick(turn, beam):\n    return POWER\n")
	v.reads("#problem", "Line 4")
	v.wait(`document.querySelector(".cm-line:nth-child(4) .cm-lintRange-error")?.textContent === "POWER"`)
	v.picture("5-mistake", true)
	v.click("#diff")
	v.wait(`document.querySelector("#difference ins") && document.querySelector("#difference del")`)
	v.click("#diff")
	v.wait(`document.querySelector("#difference").hidden`)

	// The editor knows the words of a program.
	v.click(".cm-content")
	v.rewrite("KICK_POWER = 30\n\ndef kick(turn, beam):\n    return beam")
	v.wait(`document.querySelector("#problem").hidden`) // and nothing moves any more
	v.must(v.page.Type(v.ctx, "."))
	v.must(v.page.Type(v.ctx, "r"))
	v.wait(`document.querySelector(".cm-tooltip-autocomplete li")?.textContent.startsWith("ratio")`) // not all that beam has
	v.click(".cm-tooltip-autocomplete li")
	v.reads(".cm-content", "beam.ratio")
	v.press(browser.Key{Name: "s", Code: 83, Control: true})
	v.reads("#saved", "saved, and running")

	// Another editor changes the file: the page follows, without being loaded again.
	v.must(v.page.Evaluate(v.ctx, "window.stays = true", nil))
	replace(t, l.program, "KICK_POWER = 31 # elsewhere\n")
	v.reads(".cm-content", "elsewhere")
	v.wait(`document.querySelector("#problem").hidden && window.stays`)

	// Not over what was typed but not saved.
	v.click(".cm-content")
	v.must(v.page.Type(v.ctx, "# mine\n"))
	replace(t, l.program, "KICK_POWER = 32\n")
	v.wait(`!document.querySelector("#changed").hidden`)
	v.reads(".cm-content", "# mine")
	v.click("#take")
	v.wait(`document.querySelector(".cm-content").textContent.includes("32") && !document.querySelector(".cm-content").textContent.includes("mine")`)

	// To keep what was typed is possible as the page says.
	v.click(".cm-content")
	v.press(browser.Key{Name: "a", Code: 65, Control: true})
	v.must(v.page.Type(v.ctx, "KICK_POWER = 34 # mine\n"))
	replace(t, l.program, "KICK_POWER = 33\n")
	v.wait(`!document.querySelector("#changed").hidden`)
	v.click("#save")
	v.reads("#saved", "keep mine and save again")
	if problems := v.page.Problems(); len(problems) != 1 || !strings.Contains(problems[0], "409 (Conflict)") {
		t.Errorf("the browser complains of more than the conflict: %v", problems)
	}
	v.click("#keep")
	v.click("#save")
	v.reads("#saved", "saved, and running")
	if source, err := os.ReadFile(l.program); err != nil || string(source) != "KICK_POWER = 34 # mine\n" {
		t.Errorf("the file has %q (%v)", source, err)
	}

	// The file is gone: what is in the editor is saved again.
	v.must(os.Remove(l.program))
	v.reads("#problem", "save to write it again")
	v.wait(`!document.querySelector("#problem").textContent.includes("KICK_POWER")`)
	v.click("#save")
	v.wait(`document.querySelector("#problem").hidden`)
	if source, err := os.ReadFile(l.program); err != nil || string(source) != "KICK_POWER = 34 # mine\n" {
		t.Errorf("the file has %q (%v)", source, err)
	}

	v.click("#reset")
	v.reads("#saved", "original")
	if source, err := os.ReadFile(l.program); err != nil || string(source) != lab.DefaultProgram {
		t.Errorf("after the reset the file has %q (%v)", source, err)
	}
	if problems := v.page.Problems(); len(problems) > 0 {
		t.Errorf("the browser complains: %v", problems)
	}
}

// All of it with keys alone, on a small screen, in the dark.
func TestKeyboardInBrowser(t *testing.T) {
	v := newVisitor(t)
	l := start(t, lab.Compatible, 25)
	v.open(l.url, 390, 844, "dark")
	v.tab("#launch")
	v.press(enter)
	v.ended(1, lab.TimedOut)
	v.tab(".cm-content")
	v.rewrite("KICK_POWER = 45\n")
	v.reads("#saved", "saved, and running")
	v.picture("8-code-390", false)
	v.leaveEditor()
	v.tab("#diff")
	v.press(enter)
	v.wait(`document.querySelector("#diff").getAttribute("aria-expanded") === "true" && document.querySelector("#difference ins")`)
	v.tab("#reset")
	v.tab("#launch")
	v.press(enter)
	v.ended(2, lab.Succeeded)
	// Modes are a group of radio buttons: arrows choose.
	v.back("input[name=mode]")
	v.press(browser.Key{Name: "ArrowRight", Code: 39})
	v.wait(`document.querySelector("input[value=physics]").checked`)
	v.tab("#launch")
	v.press(enter)
	v.wait(`document.querySelector("[data-of=temperature]:not([hidden]) dd").textContent > "1.9"`)
	v.picture("6-physics-390", true)
	if problems := v.page.Problems(); len(problems) > 0 {
		t.Errorf("the browser complains: %v", problems)
	}
}

// The kernel's view beside the app's, and buttons that inject.
func TestKernelInBrowser(t *testing.T) {
	v := newVisitor(t)
	l := startSeen(t, 25)
	v.open(l.url, 1280, 900, "dark")
	v.click("#launch")
	v.ended(1, lab.TimedOut)
	kicks := l.session.Lab().Totals().Kicks
	row := func(name string, n int) string {
		return fmt.Sprintf(`[...document.querySelectorAll("#twin tbody tr")].find((row) => row.cells[0].textContent === %q)?.cells[%d].textContent`, name, n)
	}
	var seen uint64
	until(t, "the same number", func() bool {
		view := l.kernel()
		if !agree(view, kicks) {
			return false
		}
		seen = *view.Seen
		return true
	})
	v.wait(fmt.Sprintf(`%s === "%d" && Number(%s) >= %d`, row("Kicks", 1), kicks, row("Kicks", 2), seen))
	// The page asked the kernel all the time; the step is done when somebody looks.
	v.wait(`document.querySelector("[data-step=kernel]").dataset.state === "open"`)
	v.click("[data-step=kernel]")
	v.reads("#guide-title", "Ask the kernel")
	v.click("#guide-actions .go")
	v.wait(`document.querySelector("#kernel-all").open && document.querySelector("[data-step=kernel]").dataset.state === "done"`)
	v.click("[data-inject=memory]")
	v.reads("[data-inject=memory]", "Stop")
	v.reads("#injections", "128 MiB are held")
	v.click("[data-inject=cpu]")
	v.reads("[data-inject=cpu]", "Stop")
	v.wait(row("CPU injected", 1))
	v.picture("7-kernel", true)
	v.click("[data-inject=cpu]")
	v.reads("[data-inject=cpu]", "Inject")
	v.click("[data-inject=memory]")
	v.reads("[data-inject=memory]", "Inject")
	if problems := v.page.Problems(); len(problems) > 0 {
		t.Errorf("the browser complains: %v", problems)
	}
}

// What is too faint to read: texts whose contrast to what is behind them is below 4.5 to 1 (WCAG 2.2, AA).
const faint = `(() => {
	const canvas = document.createElement("canvas");
	canvas.width = canvas.height = 1;
	const context = canvas.getContext("2d", { willReadFrequently: true });
	const over = (below, css) => {
		context.clearRect(0, 0, 1, 1);
		context.fillStyle = "rgb(" + below.join(",") + ")";
		context.fillRect(0, 0, 1, 1);
		context.fillStyle = css;
		context.fillRect(0, 0, 1, 1);
		return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
	};
	const light = (rgb) => {
		const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (element) => {
		const chain = [];
		for (let e = element; e; e = e.parentElement) chain.unshift(getComputedStyle(e).backgroundColor);
		return chain.reduce(over, [255, 255, 255]);
	};
	const result = [];
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const element = walker.currentNode.parentElement;
		const text = walker.currentNode.textContent.trim();
		const style = getComputedStyle(element);
		if (!text || !element.checkVisibility() || parseFloat(style.fontSize) === 0 || element.closest("option, svg, :disabled, .hidden, .skip")) continue;
		const below = behind(element);
		const [a, b] = [light(over(below, style.color)), light(below)];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) result.push(ratio.toFixed(2) + " " + text.slice(0, 40));
	}
	return result;
})()`

// Both widths in both colour schemes: nothing sticks out, nothing is too faint, everything has a name.
func TestAppearanceInBrowser(t *testing.T) {
	v := newVisitor(t)
	l := start(t, lab.Physics, 100)
	program := "KICK_POWER = 40\n" + `
kicks = counter("kick_count", "Kicks.")
speed = histogram("kick_speed_ratio", labels=["phase"])
state = stateset("my_state", ["early", "late"])
build = info("my_build", labels=["author"])
build.set(author="somebody with a long name")

def kick(turn, beam):
    kicks.inc()
    phase = "early" if beam.elapsed < 300 else "late"
    state.set(phase)
    speed.observe(beam.ratio, phase=phase)
    return {}["nothing"] if beam.elapsed > 600 else KICK_POWER
`
	replace(t, l.program, program)
	backgrounds := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1280, 1000, 390} {
			name := fmt.Sprintf("%s-%d", scheme, width)
			v.open(l.url, width, 900, scheme)
			if err := l.session.Launch(v.ctx); err != nil {
				t.Fatal(err)
			}
			v.reads("#problem", "nothing")
			v.reads("figure[data-metric=my_build_info]", "somebody")
			v.wait(`document.querySelector("#raw").textContent.includes("accelerator_")`)
			var sticksOut, tooFaint []string
			v.must(v.page.Evaluate(v.ctx, `[...document.querySelectorAll("body *")].filter((e) => {
				const box = e.getBoundingClientRect();
				return box.width > 0 && box.right > innerWidth + 0.5 && !e.closest("pre, .cm-editor, .chart-box, .skip");
			}).map((e) => e.outerHTML.slice(0, 80))`, &sticksOut))
			if len(sticksOut) > 0 {
				t.Errorf("%s: wider than the screen: %q", name, sticksOut)
			}
			v.must(v.page.Evaluate(v.ctx, faint, &tooFaint))
			if len(tooFaint) > 0 {
				t.Errorf("%s: too faint: %q", name, tooFaint)
			}
			var background string
			v.must(v.page.Evaluate(v.ctx, "getComputedStyle(document.body).backgroundColor", &background))
			backgrounds[background] = true
			nodes, err := v.page.Accessible(v.ctx)
			v.must(err)
			named := 0
			for _, n := range nodes {
				switch n.Role {
				case "button", "combobox", "radio", "textbox", "img", "region", "link", "group":
					named++
					if strings.TrimSpace(n.Name) == "" {
						t.Errorf("%s: a %s has no name", name, n.Role)
					}
				}
			}
			if named < 20 {
				t.Errorf("%s: a screen reader finds %d things", name, named)
			}
			v.picture(name, true)
		}
	}
	if len(backgrounds) != 2 {
		t.Errorf("light and dark have %d backgrounds", len(backgrounds))
	}
	if problems := v.page.Problems(); len(problems) > 0 {
		t.Errorf("the browser complains: %v", problems)
	}
}
