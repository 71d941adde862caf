"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  // What is read later: the scores of an arm, its samples at a step, a grid; each is a block of its own after this script.
  const store = (name) => { const node = at(name); return node ? JSON.parse(node.textContent) : null; };
  const read = new Map();
  const scoresOf = (i) => {
    if (!read.has(i)) { const found = store(`scores-${i}`); if (found) read.set(i, found); }
    return read.get(i) || { places: [], scores: {} };
  };
  const parsed = new Promise((done) => { if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done, { once: true }); else done(); });
  const arms = page.arms || [];
  const steps = [...new Set(arms.flatMap((arm) => arm.steps))].sort((a, b) => a - b);
  const state = { metric: page.metric, index: 0, prompt: 0, zoom: "auto", hidden: new Set(), charts: {} };
  const dark = () => document.documentElement.dataset.theme === "dark";
  const tones = new Map();
  function tone(name) {
    const key = `${document.documentElement.dataset.theme} ${name}`;
    if (!tones.has(key)) tones.set(key, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
    return tones.get(key);
  }
  const number = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const signed = (value) => (value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3));
  const metricOf = (name) => page.metrics.find((metric) => metric.name === name);

  // Marks: the line and marker of an arm, as its key shows them.
  const SHAPES = {
    circle: "M15 8m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", square: "M11 4h8v8h-8z", triangle: "M15 3l5 9h-10z", diamond: "M15 2l4 6-4 6-4-6z",
    inverted_triangle: "M15 13l5-9h-10z", hex: "M11 5.5l4-2.5 4 2.5v5l-4 2.5-4-2.5z",
  };
  const LINES = { solid: "", dashed: "6 3", dotted: "2 3", dotdash: "2 3 6 3", dashdot: "6 3 2 3" };
  const HATCHES = ["right_diagonal_line", "left_diagonal_line", "horizontal_line", "vertical_line", "dot", "cross"];
  const SWATCHES = ["135deg", "45deg", "0deg", "90deg", "0deg", "90deg"];
  function swatch(i) {
    const found = make("span", { className: "swatch avoid" });
    if (arms.length > 1) { found.style.setProperty("--hatch", `var(--arm-${i % 6})`); found.style.setProperty("--slant", SWATCHES[i % 6]); }
    return found;
  }
  function markOf(i) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", "30"); svg.setAttribute("height", "16"); svg.setAttribute("aria-hidden", "true");
    const color = `var(--arm-${i % 6})`;
    for (const [d, fill, dash] of [["M0 8H30", "none", LINES[page.palette.dashes[i % 6]]], [SHAPES[page.palette.markers[i % 6]], color, ""]]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", d); path.style.fill = fill; path.style.stroke = color; path.setAttribute("stroke-width", "1.8");
      if (dash) path.setAttribute("stroke-dasharray", dash);
      svg.append(path);
    }
    return svg;
  }

  // Theme: the reader's choice, else the system's.
  const system = matchMedia("(prefers-color-scheme: dark)");
  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    at("theme").textContent = name === "dark" ? "Light" : "Dark";
    at("theme").setAttribute("aria-pressed", String(name === "dark"));
    Object.values(state.charts).forEach(paint);
  }
  const remembered = () => { try { return localStorage.getItem("bayesdiff-theme"); } catch { return null; } };
  function remember(name) { try { localStorage.setItem("bayesdiff-theme", name); } catch { /* a file may have no storage */ } }

  function paint(chart) {
    const colors = page.palette[dark() ? "dark" : "light"];
    const [ink, soft, rule] = ["ink", "soft", "rule"].map(tone);
    for (const model of chart.models) {
      const [kind, arm, part] = model.tags || [];
      if (kind === "arm") {
        const color = colors[arm % 6];
        const edge = part === "kept" ? ink : color;
        for (const [key, value] of [["line_color", edge], ["fill_color", color]]) {
          if (key in model.attributes) model[key] = model.attributes[key] !== null && typeof model.attributes[key] === "object" ? { value } : value;
        }
        for (const head of ["lower_head", "upper_head"]) if (model[head]) model[head].line_color = color;
      } else if (kind === "ink") model.line_color = ink;
      else if (kind === "text") Object.assign(model, { text_color: ink, background_fill_color: tone("card"), background_fill_alpha: 0.82 });
      else if (kind === "avoid") {
        const color = arms.length > 1 && page.kind === "runs" ? colors[arm % 6] : tone("bad");
        Object.assign(model, { fill_color: color, hatch_color: color, line_color: color, hatch_pattern: HATCHES[arm % 6] });
      }
      else if (kind === "stage") Object.assign(model, { fill_color: tone("warn"), line_color: tone("warn") });
      else if (model.type.endsWith("Axis")) {
        Object.assign(model, { axis_label_text_color: soft, major_label_text_color: soft, axis_line_color: rule, major_tick_line_color: rule });
      } else if (model.type === "Grid") model.grid_line_color = rule;
    }
  }

  async function embed(item, host, fill, tell = () => null) {
    await Bokeh.embed.embed_item(structuredClone(item), host);
    const doc = Bokeh.documents[Bokeh.documents.length - 1];
    const chart = { host, doc, models: [...doc._all_models.values()], named: (name) => doc.get_model_by_name(name), fill };
    chart.figure = doc.roots()[0];
    if (matchMedia("(pointer: coarse)").matches) for (const tool of chart.figure.toolbar.tools) if ("active" in tool) tool.active = false;
    chart.figure.on_event("tap", (event) => { if (typeof event.x === "number") tapped(event.x); });
    const tip = make("div", { className: "tip", hidden: true });
    host.append(tip);
    chart.figure.on_event("mousemove", (event) => {
      const told = tell(event.x, event.y);
      tip.hidden = !told;
      if (told) tip.replaceChildren(...told);
      tip.classList.toggle("left", event.sx > host.clientWidth / 2);
    });
    chart.figure.on_event("mouseleave", () => { tip.hidden = true; });
    state.charts[host.id] = chart;
    fill(chart);
    paint(chart);
    if (at("slider") && steps.length) set(chart, "now", { location: steps[state.index], visible: true });
    return chart;
  }
  const set = (chart, name, values) => { const model = chart.named(name); if (model) Object.assign(model, values); };

  function tapped(x) {
    if (!at("slider")) return;
    let best = 0;
    steps.forEach((step, i) => { if (Math.abs(step - x) < Math.abs(steps[best] - x)) best = i; });
    go(best);
  }

  // What is told of the checkpoint next to the pointer.
  const nearest = (all, x) => all.reduce((best, step) => (Math.abs(step - x) < Math.abs(best - x) ? step : best), all[0]);
  function tipOf(head, lines) {
    return [make("b", { textContent: head }), ...lines.map(([i, name, value, word]) => make("p", {}, i === null ? null : markOf(i), make("span", { textContent: name ? `${name} ` : "" }), make("strong", { textContent: value }), word ? ` ${word}` : ""))];
  }
  function tellCurve(shown, metric, x) {
    const step = nearest([...new Set(shown.flatMap((arm) => arm.steps))], x);
    const lines = shown.flatMap((arm, i) => {
      const [t, curve] = [arm.steps.indexOf(step), arm.curves[metric]];
      if (t < 0 || !curve || curve.mean[t] === null || (shown === arms && state.hidden.has(i))) return [];
      const band = curve.low[t] === curve.high[t] ? "" : ` (${number(curve.low[t])} to ${number(curve.high[t])})`;
      return [[i, shown.length > 1 ? arm.label : "", `${number(curve.mean[t])}${band}`, arm.keep === step ? "★ to keep" : arm.stages[t] || ""]];
    });
    return lines.length ? tipOf(`step ${step}`, lines) : null;
  }
  function tellGaps(x) {
    const found = Object.entries(page.gaps[state.metric] || {});
    if (!found.length) return null;
    const step = nearest([...new Set(found.flatMap(([, one]) => one.steps))], x);
    return tipOf(`step ${step}`, found.filter(([, one]) => one.steps.includes(step)).map(([i, one]) => {
      const t = one.steps.indexOf(step);
      const interval = one.low[t] === null ? "" : ` (${signed(one.low[t])} to ${signed(one.high[t])})`;
      return [Number(i), arms[i].label, `${signed(one.mean[t])}${interval}`, ""];
    }));
  }
  function tellForest(y) {
    const row = (page.differences[state.metric] || [])[Math.round(-y)];
    return row ? tipOf(row.name, [[null, "", row.said, ""]]) : null;
  }

  // Ranges of more than two arms would hide each other: each arm has a lane of its own at the foot of the chart.
  const lane = (shown, i) => (shown.length < 3 ? {} : { bottom: 3 + 10 * i, top: 11 + 10 * i, bottom_units: "screen", top_units: "screen", fill_alpha: 0.45 });

  // The curve of the chosen score.
  function fillCurve(chart, shown = arms, metric = state.metric) {
    shown.forEach((arm, i) => {
      const curve = arm.curves[metric];
      const hidden = state.hidden.has(i) || !curve;
      const data = { x: [], y: [], low: [], high: [] };
      arm.steps.forEach((step, t) => {
        if (hidden || curve.mean[t] === null) return;
        data.x.push(step); data.y.push(curve.mean[t]); data.low.push(curve.low[t]); data.high.push(curve.high[t]);
      });
      const k = data.x.indexOf(arm.keep);
      set(chart, `source-${i}`, { data });
      set(chart, `kept-source-${i}`, { data: k < 0 ? { x: [], y: [] } : { x: [data.x[k]], y: [data.y[k]] } });
    });
    const avoid = shown.flatMap((arm, i) => (state.hidden.has(i) ? [] : arm.avoid.map((span) => [...span, i])));
    for (let i = 0; chart.named(`avoid-${i}`); i += 1) set(chart, `avoid-${i}`, avoid[i] ? { left: avoid[i][0], right: avoid[i][1], visible: true, tags: ["avoid", avoid[i][3]], ...lane(shown, avoid[i][3]) } : { visible: false });
    const stage = shown.length === 1 && shown[0].stage;
    set(chart, "stage", stage ? { left: stage[0], right: stage[1], visible: true } : { visible: false });
    const level = shown.map((arm) => arm.ceilings[metric]).find((value) => value !== undefined);
    set(chart, "own-level", level === undefined ? { visible: false } : { location: level, visible: true });
    chart.figure.left[0].axis_label = (metricOf(metric) || { label: metric }).label;
  }

  function fillKey() {
    const key = at("key");
    if (!key) return;
    key.replaceChildren();
    arms.forEach((arm, i) => {
      if (arms.length === 1) { key.append(make("span", { className: "item" }, markOf(i), arm.images > 1 ? "mean and 95 % band over images" : "score of the one image")); return; }
      const chip = make("button", { type: "button", className: "chip" }, markOf(i), arm.label);
      chip.setAttribute("aria-pressed", String(!state.hidden.has(i)));
      chip.title = "Show or hide this curve";
      chip.onclick = () => { state.hidden.has(i) ? state.hidden.delete(i) : state.hidden.add(i); fillCurve(state.charts.curve); paint(state.charts.curve); chip.setAttribute("aria-pressed", String(!state.hidden.has(i))); };
      key.append(chip);
    });
    const kept = [...new Set(arms.map((arm) => arm.keep).filter((step) => step !== null))];
    if (kept.length) key.append(make("span", { className: "item", textContent: `★ to keep: step ${kept.join(", ")}` }));
    arms.flatMap((arm, i) => arm.avoid.map((span) => [arm, span, i])).forEach(([arm, [first, last, why], i]) => {
      const whose = arms.length > 1 ? `${arm.label}: ` : "";
      key.append(make("span", { className: "item" }, swatch(i), `${whose}avoid ${first} to ${last}${why ? ` (${why})` : ""}`));
    });
    if (arms.length === 1 && arms[0].stage) key.append(make("span", { className: "item" }, make("span", { className: "swatch stage" }), `corruption stage, ${arms[0].stage[0]} to ${arms[0].stage[1]}`));
    if (arms.some((arm) => arm.ceilings[state.metric] !== undefined)) key.append(make("span", { className: "item", textContent: "–·– similarity of different photographs" }));
  }

  function fillGaps(chart) {
    const found = page.gaps[state.metric] || {};
    arms.forEach((arm, i) => {
      if (!i) return;
      const one = found[i];
      const data = { x: [], y: [], low: [], high: [] };
      (one ? one.steps : []).forEach((step, t) => {
        data.x.push(step); data.y.push(one.mean[t]); data.low.push(one.low[t] ?? one.mean[t]); data.high.push(one.high[t] ?? one.mean[t]);
      });
      set(chart, `source-${i}`, { data });
    });
    chart.figure.left[0].axis_label = `difference of ${metricOf(state.metric).label}`;
  }

  function nameMetric() {
    const metric = metricOf(state.metric);
    if (!metric) return;
    if (at("unit")) at("unit").textContent = metric.unit;
    if (at("gap-unit")) at("gap-unit").textContent = `${metric.label}.`;
    if (page.kind === "runs") fillKey();
  }
  function choose(metric) {
    state.metric = metric;
    nameMetric();
    Object.values(state.charts).forEach((chart) => { chart.fill(chart); paint(chart); });
    if (at("pictures")) showPictures();
  }

  // Samples: this step and the kept one of every arm, at whole multiples of their pixels.
  function showPictures() {
    const step = steps[state.index];
    const host = at("pictures");
    host.replaceChildren();
    if (page.photos.length) host.append(make("div", { className: "group" }, make("p", { textContent: page.photos.length > 1 ? "Training images" : "Training image" }), make("div", { className: "row" }, ...page.photos.map((src, i) => picture(src, "", `training image ${i + 1}`)))));
    arms.forEach((arm, i) => {
      const row = make("div", { className: "row" }, sample(i, step, "this step"), arm.keep !== null && arm.pictures.includes(arm.keep) ? sample(i, arm.keep, "to keep", true) : null);
      const head = arms.length > 1 ? make("p", {}, markOf(i), arm.label) : make("p", { textContent: "Samples" });
      host.append(make("div", { className: "group" }, head, row));
    });
    sizePictures();
  }
  function sample(i, step, word, keep = false) {
    const arm = arms[i];
    const t = arm.steps.indexOf(step);
    const src = arm.pictures.includes(step) ? (store(`pictures-${i}-${step}`) || [])[state.prompt] : null;
    const [prompt, image] = page.prompts[state.prompt].place;
    const { places, scores } = scoresOf(i);
    const k = places.findIndex((place) => place[0] === prompt && place[1] === image);
    const score = scores[state.metric] && t >= 0 && k >= 0 ? `${metricOf(state.metric).label} ${number(scores[state.metric][t][k])}` : "";
    const stage = t >= 0 ? arm.stages[t] || "" : "";
    const figure = picture(src, score, `${arm.label || "sample"}, step ${step}, ${page.prompts[state.prompt].text}`, t < 0 ? "no checkpoint here" : "no sample here");
    figure.querySelector("figcaption").prepend(make("b", { textContent: `${keep ? "★ " : ""}step ${step}` }), ` ${keep ? word : stage || word}`, make("br"));
    return figure;
  }
  function picture(src, caption, alt, lacking = "no picture") {
    const frame = make("div", { className: "frame" }, src ? make("img", { decoding: "sync", src, alt }) : make("div", { className: "none", textContent: lacking }));
    return make("figure", {}, frame, make("figcaption", { textContent: caption }));
  }
  function sizePictures() {
    const host = at("pictures");
    const ratio = devicePixelRatio || 1;
    const images = [...host.querySelectorAll("img")];
    const wide = host.clientWidth;
    const columns = wide < 560 ? 2 : Math.max(3, Math.min(images.length, Math.floor((wide + 20) / 212)));
    const room = Math.min((wide - 20 * (columns - 1)) / columns, 384);
    for (const image of images) {
      const size = () => {
        const natural = image.naturalWidth;
        const fits = Math.floor((room * ratio) / natural);
        const times = state.zoom === "auto" ? fits : Number(state.zoom);
        image.classList.toggle("whole", times >= 1);
        image.style.width = `${times >= 1 ? (natural * times) / ratio : room}px`;
        image.style.height = "auto";
      };
      image.complete && image.naturalWidth ? size() : image.addEventListener("load", size, { once: true });
    }
    for (const none of host.querySelectorAll(".none")) Object.assign(none.style, { width: `${Math.min(room, 256)}px`, height: `${Math.min(room, 256)}px` });
  }

  function go(index) {
    if (!steps.length) return;
    state.index = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[state.index];
    at("slider").value = state.index;
    at("slider").setAttribute("aria-valuetext", `step ${step}`);
    at("step").textContent = step;
    for (const chart of [state.charts.curve, state.charts.gaps]) if (chart) set(chart, "now", { location: step, visible: true });
    document.querySelectorAll("tr[data-step]").forEach((row) => row.classList.toggle("here", Number(row.dataset.step) === step));
    showPictures();
  }
  function startSlider() {
    const slider = at("slider");
    slider.max = steps.length - 1;
    const place = (i) => `${steps.length > 1 ? (100 * i) / (steps.length - 1) : 0}%`;
    slider.addEventListener("input", () => go(Number(slider.value)));
    at("back").onclick = () => go(state.index - 1);
    at("forth").onclick = () => go(state.index + 1);
    const kept = arms.map((arm) => arm.keep).find((step) => step !== null);
    const last = steps.length - 1;
    const marks = [[0, "from", `${steps[0]}`], [last, "until", `${steps[last]}`]];
    const k = steps.indexOf(kept);
    if (k >= 0) marks.push([k, `keep${k === 0 ? " from" : k === last ? " until" : ""}`, `★ ${kept}`]);
    for (const [i, className, textContent] of marks.filter(([i, name]) => name.startsWith("keep") || Math.abs(i - k) > last * 0.08)) {
      const tick = make("span", { className, textContent });
      tick.style.left = place(i);
      at("ticks").append(tick);
    }
    for (const [first, to] of arms.length === 1 ? arms[0].avoid : []) {
      const zone = make("i");
      const [from, until] = [steps.indexOf(first), steps.indexOf(to)];
      zone.style.left = `calc(${place(from)} - 5px)`;
      zone.style.width = `calc(${place(until - from)} + 10px)`;
      at("zones").append(zone);
    }
    document.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      if (event.target.closest && event.target.closest(".scroll, .bk-Figure")) return;
      const moves = { ArrowLeft: () => go(state.index - 1), ArrowRight: () => go(state.index + 1), k: () => k >= 0 && go(k), K: () => k >= 0 && go(k) };
      if (!moves[event.key]) return;
      event.preventDefault();
      moves[event.key]();
      at("live").textContent = `step ${steps[state.index]}`;
    });
    at("prompt").addEventListener("change", (event) => { state.prompt = Number(event.target.value); showPictures(); });
    at("zoom").addEventListener("change", (event) => { state.zoom = event.target.value; sizePictures(); });
    addEventListener("resize", sizePictures);
    document.querySelectorAll("tr[data-step]").forEach((row) => row.addEventListener("click", () => go(steps.indexOf(Number(row.dataset.step)))));
    const worst = arms[0].avoid[0];
    state.index = worst ? steps.indexOf(worst[0]) : last;  // beside the one to keep: what keeping another one would cost
  }

  // CSV of means, or of every image.
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const cell = (value) => (value === null ? "" : String(value));
  function csv(i, what) {
    const arm = arms[i];
    const names = Object.keys(arm.curves);
    const lines = [];
    if (what === "curve") {
      lines.push(["step", "stage", ...names.flatMap((name) => [name, `${name}_low`, `${name}_high`])]);
      arm.steps.forEach((step, t) => lines.push([step, arm.stages[t] || "", ...names.flatMap((name) => ["mean", "low", "high"].map((part) => cell(arm.curves[name][part][t])))]));
    } else {
      const { places, scores } = scoresOf(i);
      lines.push(["step", "prompt", "image", ...names]);
      arm.steps.forEach((step, t) => places.forEach(([prompt, image], k) => lines.push([step, prompt, image, ...names.map((name) => cell(scores[name][t][k]))])));
    }
    return written(lines);
  }
  const written = (lines) => lines.map((line) => line.map((value) => quoted(String(value))).join(",")).join("\n") + "\n";
  const csvOfTable = (table) => written([...table.rows].map((row) => [...row.cells].map((one) => one.textContent.trim())));
  function csvOfRuns() {
    const names = [...new Set(arms.flatMap((arm) => Object.keys(arm.curves)))];
    return written([["run", "what", "step", "stage", ...names], ...arms.flatMap((arm) => arm.steps.map((step, t) => [arm.name, arm.label, step, arm.stages[t] || "", ...names.map((name) => (arm.curves[name] ? cell(arm.curves[name].mean[t]) : ""))]))]);
  }
  function download(text, name) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const link = make("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  document.querySelectorAll("[data-csv]").forEach((button) => {
    button.onclick = () => { const i = Number(button.dataset.csv); download(csv(i, button.dataset.what), `${arms[i].name.replace(/[^\w.-]+/g, "_")}-${button.dataset.what}.csv`); };
  });
  document.querySelectorAll("[data-csv-table]").forEach((button) => { button.onclick = () => download(csvOfTable(at(button.dataset.csvTable)), "table.csv"); });
  document.querySelectorAll("[data-csv-runs]").forEach((button) => { button.onclick = () => download(csvOfRuns(), "curves.csv"); });
  document.querySelectorAll("[data-copy]").forEach((button) => {
    button.onclick = async () => {
      const text = button.parentElement.querySelector("code").textContent;
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector("code")); button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    };
  });

  // Studies: the differences, and the curve of a run once its details are opened.
  function fillForest(chart) {
    const rows = page.differences[state.metric] || [];
    const data = { x: [], y: [], low: [], high: [], row: [], alpha: [] };
    rows.forEach((row, i) => {
      data.x.push(row.mean); data.y.push(-i); data.low.push(row.low ?? row.mean); data.high.push(row.high ?? row.mean); data.row.push(row.name);
      data.alpha.push(row.low !== null && (row.low > 0 || row.high < 0) ? 1 : 0);
    });
    set(chart, "source-0", { data });
    chart.figure.below[0].axis_label = `difference of ${metricOf(state.metric).label} from the reference arm`;
  }
  function openRun() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || target.tagName !== "DETAILS") return;
    for (let node = target; node; node = node.parentElement.closest("details")) node.open = true;
    target.scrollIntoView({ block: "start" });
  }
  function startStudy() {
    document.querySelectorAll("details[data-run]").forEach((details) => details.addEventListener("toggle", async () => {
      const host = details.querySelector(".chart");
      if (!details.open || host.dataset.drawn) return;
      host.dataset.drawn = "yes";
      const arm = arms[Number(details.dataset.run)];
      embed(page.charts[1], host, (chart) => fillCurve(chart, [arm], arm.metric), (x) => tellCurve([arm], arm.metric, x));
      await parsed;
      const sheet = details.querySelector("img[data-grid]");
      if (sheet) sheet.src = store(sheet.dataset.grid);
    }));
    document.querySelectorAll('a[href^="#run-"]').forEach((link) => link.addEventListener("click", () => setTimeout(openRun)));
    addEventListener("hashchange", openRun);
    openRun();
  }

  document.querySelectorAll("[data-mark]").forEach((host) => host.append(markOf(Number(host.dataset.mark))));
  at("theme").onclick = () => { const name = dark() ? "light" : "dark"; remember(name); setTheme(name); };
  system.addEventListener("change", () => { if (!remembered()) setTheme(system.matches ? "dark" : "light"); });
  setTheme(remembered() || (system.matches ? "dark" : "light"));
  if (at("metric")) {
    at("metric").value = state.metric;
    at("metric").addEventListener("change", (event) => choose(event.target.value));
  }
  // A chart is drawn when it comes near the window, and all are before they are printed.
  const waiting = new Map();
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && drawn(entry.target)), { rootMargin: "300px" });
  function drawn(host) {
    const draw = waiting.get(host);
    waiting.delete(host);
    near.unobserve(host);
    return draw && draw();
  }
  async function later(id, draw) {
    const host = at(id);
    if (!host) return;
    const first = host === document.querySelector(".chart");
    waiting.set(host, () => draw(host));
    if (first || host.getBoundingClientRect().top < innerHeight) await drawn(host);
    else near.observe(host);
  }
  addEventListener("beforeprint", () => [...waiting.keys()].forEach(drawn));

  async function start() {
    nameMetric();
    if (at("slider") && steps.length) startSlider();
    await later("curve", (host) => embed(page.curve, host, (chart) => fillCurve(chart), (x) => tellCurve(arms, state.metric, x)));
    await later("forest", (host) => embed(page.forest, host, fillForest, (x, y) => tellForest(y)));
    await later("gaps", (host) => embed(page.gap_chart, host, fillGaps, tellGaps));
    if (at("gaps")) at("gap-key").replaceChildren(...arms.slice(1).map((arm, i) => make("span", { className: "item" }, markOf(i + 1), arm.label)));
    for (const [i, group] of (page.groups || []).entries()) {
      await later(`group-${i}`, (host) => embed(page.charts[group.rows.length], host, (chart) => fillCurve(chart, group.rows, "dino"), (x) => tellCurve(group.rows, "dino", x)));
    }
    await parsed;
    if (at("slider") && steps.length) go(state.index);
    if (page.kind === "study") startStudy();
    document.documentElement.dataset.ready = "yes";
  }
  start();
})();
