// Package browser drives Chromium for tests: a page, its keyboard, its pictures. It speaks the DevTools protocol over a pair of
// pipes, so that it needs no library and no port.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// ErrMissing means that there is no Chromium.
var ErrMissing = errors.New("chromium is not installed")

// Browser is a Chromium without a window and with a profile of its own. It is safe for concurrent use.
type Browser struct {
	command *exec.Cmd
	profile string
	input   *os.File
	gone    chan struct{}

	mu      sync.Mutex
	serial  int
	waiting map[int]chan message
	events  func(session, method string, parameters json.RawMessage)
}

// message is one of the protocol: a command, its answer, or an event.
type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    any             `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts Chromium, or returns ErrMissing. Close ends it.
func Start() (*Browser, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, ErrMissing
	}
	profile, err := os.MkdirTemp("", "kaon-browser-")
	if err != nil {
		return nil, err
	}
	// Chromium reads commands from descriptor 3 and writes to descriptor 4.
	theirInput, ourOutput, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ourInput, theirOutput, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	command := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
		"--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.ExtraFiles = []*os.File{theirInput, theirOutput}
	command.Env = append(os.Environ(), "HOME="+profile)
	if err := command.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(profile))
	}
	theirInput.Close()
	theirOutput.Close()
	b := &Browser{command: command, profile: profile, input: ourOutput, gone: make(chan struct{}), waiting: map[int]chan message{}}
	go b.listen(ourInput)
	return b, nil
}

// endWithin is how long Chromium may take to end, and its children to let go of the profile.
const endWithin = 10 * time.Second

// Close ends Chromium, kills what does not end in time, and removes its profile.
func (b *Browser) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	_, err := b.call(ctx, "", "Browser.close", nil)
	_ = b.input.Close()
	// The process leads a group of its own, which has its number, as long as it is not waited for.
	kill := func() { _ = syscall.Kill(-b.command.Process.Pid, syscall.SIGKILL) }
	if err != nil {
		kill()
	}
	late := time.AfterFunc(endWithin, kill)
	_ = b.command.Wait()
	late.Stop()
	// Children write for a moment longer than it lives.
	for deadline := time.Now().Add(endWithin); ; time.Sleep(50 * time.Millisecond) {
		if err = os.RemoveAll(b.profile); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (b *Browser) listen(from io.ReadCloser) {
	defer close(b.gone)
	defer from.Close()
	reader := bufio.NewReader(from)
	for {
		data, err := reader.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			message
			Params json.RawMessage `json:"params"`
		}
		if json.Unmarshal(data[:len(data)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		answer, events := b.waiting[m.ID], b.events
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case m.ID != 0 && answer != nil:
			answer <- m.message
		case m.ID == 0 && events != nil:
			events(m.SessionID, m.Method, m.Params)
		}
	}
}

func (b *Browser) call(ctx context.Context, session, method string, parameters any) (json.RawMessage, error) {
	answer := make(chan message, 1)
	b.mu.Lock()
	b.serial++
	data, err := json.Marshal(message{ID: b.serial, SessionID: session, Method: method, Params: parameters})
	if err == nil {
		b.waiting[b.serial] = answer
		_, err = b.input.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return nil, fmt.Errorf("%s: %s", method, m.Error.Message)
		}
		return m.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	case <-b.gone:
		return nil, fmt.Errorf("%s: chromium is gone", method)
	}
}

// Page is a tab.
type Page struct {
	browser *Browser
	session string

	mu       sync.Mutex
	problems []string
}

// NewPage opens an empty tab. A browser notes the problems of its latest tab only.
func (b *Browser) NewPage(ctx context.Context) (*Page, error) {
	result, err := b.call(ctx, "", "Target.createTarget", map[string]any{"url": "about:blank"})
	if err != nil {
		return nil, err
	}
	var target struct {
		ID string `json:"targetId"`
	}
	if err := json.Unmarshal(result, &target); err != nil {
		return nil, err
	}
	result, err = b.call(ctx, "", "Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true})
	if err != nil {
		return nil, err
	}
	var attached struct {
		ID string `json:"sessionId"`
	}
	if err := json.Unmarshal(result, &attached); err != nil {
		return nil, err
	}
	p := &Page{browser: b, session: attached.ID}
	b.mu.Lock()
	b.events = p.note
	b.mu.Unlock()
	for _, domain := range []string{"Page.enable", "Runtime.enable", "Log.enable", "Accessibility.enable"} {
		if _, err := p.call(ctx, domain, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Page) call(ctx context.Context, method string, parameters any) (json.RawMessage, error) {
	return p.browser.call(ctx, p.session, method, parameters)
}

// note keeps what the page complains of: exceptions, and what the browser refused.
func (p *Page) note(session, method string, parameters json.RawMessage) {
	if session != p.session || method != "Runtime.exceptionThrown" && method != "Log.entryAdded" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, string(parameters))
}

// Problems returns exceptions of the page's script and what the browser's log has, and forgets them.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	problems := p.problems
	p.problems = nil
	return problems
}

// Open goes to an address and waits until it is loaded.
func (p *Page) Open(ctx context.Context, url string) error {
	result, err := p.call(ctx, "Page.navigate", map[string]any{"url": url})
	if err != nil {
		return err
	}
	var went struct {
		Error string `json:"errorText"`
	}
	if err := json.Unmarshal(result, &went); err != nil || went.Error != "" {
		return fmt.Errorf("open %s: %s", url, went.Error)
	}
	return p.Wait(ctx, `document.readyState === "complete" && location.href !== "about:blank"`)
}

// Appear sets the width and height of the view in pixels, and the colour scheme: light or dark.
func (p *Page) Appear(ctx context.Context, width, height int, scheme string) error {
	_, err := p.call(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	if err != nil {
		return err
	}
	_, err = p.call(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
	return err
}

// Evaluate runs an expression of JavaScript in the page, and decodes what it comes to; into may be nil.
func (p *Page) Evaluate(ctx context.Context, expression string, into any) error {
	result, err := p.call(ctx, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true})
	if err != nil {
		return err
	}
	var evaluated struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	if err := json.Unmarshal(result, &evaluated); err != nil {
		return err
	}
	if evaluated.Exception != nil {
		return fmt.Errorf("%s: %s", expression, evaluated.Exception.Exception.Description)
	}
	if into == nil || evaluated.Result.Value == nil {
		return nil
	}
	return json.Unmarshal(evaluated.Result.Value, into)
}

// Wait waits until an expression is true.
func (p *Page) Wait(ctx context.Context, expression string) error {
	for {
		var yes bool
		err := p.Evaluate(ctx, "!!("+expression+")", &yes)
		if err == nil && yes {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", expression, errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Click clicks the middle of the first element of a selector, as a mouse does: what lies over it gets the click.
func (p *Page) Click(ctx context.Context, selector string) error {
	type point struct{ X, Y float64 }
	var at, before point
	// What floats above the page follows its scrolling some frames later.
	for attempt := 0; attempt == 0 || at != before; attempt++ {
		before = at
		err := p.Evaluate(ctx, fmt.Sprintf(`(() => {
			const element = document.querySelector(%q);
			element.scrollIntoView({ block: "center", behavior: "instant" });
			const box = element.getBoundingClientRect();
			return { X: box.left + box.width / 2, Y: box.top + box.height / 2 };
		})()`, selector), &at)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		_, err := p.call(ctx, "Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1})
		if err != nil {
			return err
		}
	}
	return nil
}

// Key is one of the keyboard.
type Key struct {
	Name string
	Code int // as in KeyboardEvent.keyCode
	// Text that it types, if any.
	Text           string
	Control, Shift bool
}

// Press presses and releases a key.
func (p *Page) Press(ctx context.Context, key Key) error {
	modifiers := 0
	if key.Control {
		modifiers |= 2
	}
	if key.Shift {
		modifiers |= 8
	}
	for _, kind := range []string{"keyDown", "keyUp"} {
		event := map[string]any{"type": kind, "key": key.Name, "windowsVirtualKeyCode": key.Code, "modifiers": modifiers}
		if kind == "keyDown" && key.Text != "" {
			event["text"] = key.Text
		}
		if _, err := p.call(ctx, "Input.dispatchKeyEvent", event); err != nil {
			return err
		}
	}
	return nil
}

// Type types a text where the focus is.
func (p *Page) Type(ctx context.Context, text string) error {
	_, err := p.call(ctx, "Input.insertText", map[string]any{"text": text})
	return err
}

// Picture returns the view as a PNG; whole means the page in its full height.
func (p *Page) Picture(ctx context.Context, whole bool) ([]byte, error) {
	result, err := p.call(ctx, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": whole})
	if err != nil {
		return nil, err
	}
	var picture struct {
		Data string `json:"data"`
	}
	if err := json.Unmarshal(result, &picture); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(picture.Data)
}

// Node is one of what a screen reader sees.
type Node struct {
	Role, Name string
}

// Accessible returns what a screen reader sees and does not skip.
func (p *Page) Accessible(ctx context.Context) ([]Node, error) {
	result, err := p.call(ctx, "Accessibility.getFullAXTree", nil)
	if err != nil {
		return nil, err
	}
	type value struct {
		Value any `json:"value"`
	}
	var tree struct {
		Nodes []struct {
			Ignored bool  `json:"ignored"`
			Role    value `json:"role"`
			Name    value `json:"name"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(result, &tree); err != nil {
		return nil, err
	}
	var nodes []Node
	for _, n := range tree.Nodes {
		if !n.Ignored {
			nodes = append(nodes, Node{fmt.Sprint(n.Role.Value), fmt.Sprint(n.Name.Value)})
		}
	}
	return nodes, nil
}
