// What pages do besides being read: live updates, shortcuts, copying. Every page works without it.
"use strict";
(() => {
  const root = document.body.dataset.root;
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const one = (selector, of = document) => of.querySelector(selector);
  const announce = one("#announce");
  let quiet;
  const say = (text) => {
    if (!announce) return;
    announce.textContent = text;
    clearTimeout(quiet);
    quiet = setTimeout(() => { announce.textContent = ""; }, 6000);
  };

  const keep = (name, value) => { try { localStorage.setItem(name, value); return true; } catch { return false; } };
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };

  // Times: as ages, in local time, or in UTC; this browser keeps which. Ages go on while the page stands.
  const FORMS = ["ages", "local", "UTC"];
  let form = FORMS.includes(kept("amends.times")) ? kept("amends.times") : "ages";
  const two = (number) => String(number).padStart(2, "0");
  const span = (millis) => {
    const seconds = Math.floor(millis / 1000);
    if (seconds < 1 && millis > 0) return Math.floor(millis) + " ms";
    if (seconds < 120) return seconds + " s";
    if (seconds < 7200) return Math.floor(seconds / 60) + " min";
    if (seconds < 172800) return Math.floor(seconds / 3600) + " h";
    return Math.floor(seconds / 86400) + " d";
  };
  const told = (at, kind) => {
    if (form === "ages" && kind === "ago") {
      const millis = Date.now() - at;
      return millis < 0 ? "in " + span(-millis) : span(millis) + " ago";
    }
    const shifted = form === "local" ? new Date(at - at.getTimezoneOffset() * 60000) : at;
    const [day, time] = shifted.toISOString().split("T");
    return kind === "day" ? time.slice(0, 12) : day + " " + time.slice(0, 8);
  };
  const times = () => all("time[datetime]").forEach((time) => {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) return;
    const text = told(at, time.dataset.form);
    if (time.textContent !== text) time.textContent = text;
    if (!time.title.includes("local")) time.title += " · " + at.toLocaleString() + " local";
  });
  const clock = one("[data-times]");
  const nameTimes = () => {
    all("[data-zone]").forEach((zone) => { zone.textContent = form === "local" ? "local" : "UTC"; });
    if (clock) { clock.hidden = false; clock.textContent = "Times: " + form; }
  };
  const turnTimes = () => {
    form = FORMS[(FORMS.indexOf(form) + 1) % FORMS.length];
    keep("amends.times", form);
    nameTimes();
    times();
    say("Times are told " + (form === "ages" ? "as ages" : form === "local" ? "in local time" : "in UTC"));
  };
  if (clock) clock.onclick = turnTimes;
  setInterval(() => { if (form === "ages" && !document.hidden) times(); }, 5000);

  const copying = () => all("[data-copy]").forEach((button) => {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.onclick = () => navigator.clipboard.writeText(button.dataset.copy).then(() => say("Copied"), () => say("It could not be copied"));
  });

  // Selection.
  const selecting = () => {
    const form = one("[data-selection]");
    if (!form) return;
    const boxes = () => all("input[name=id]", form);
    const whole = one("[data-all]", form);
    const told = one("[data-selected]", form);
    const count = () => {
      const checked = boxes().filter((box) => box.checked).length;
      told.textContent = checked ? checked + " selected" : "";
      whole.checked = checked > 0 && checked === boxes().length;
      whole.indeterminate = checked > 0 && !whole.checked;
    };
    whole.onchange = () => { boxes().forEach((box) => { box.checked = whole.checked; }); count(); };
    form.addEventListener("change", count);
    count();
  };

  // Views that this browser keeps.
  const viewing = () => {
    const place = one("[data-views]");
    const save = one("[data-save-view]");
    const asking = one("#save-view");
    if (!place || !save || !asking) return;
    const name = "amends.views";
    const read = () => { try { const found = JSON.parse(kept(name)); return Array.isArray(found) ? found : []; } catch { return []; } };
    const write = (views) => { if (!keep(name, JSON.stringify(views.slice(0, 20)))) say("This browser keeps nothing"); };
    const here = location.search.replace(/^\?/, "");
    const show = () => {
      place.replaceChildren(...read().map((view) => {
        const link = document.createElement("a");
        link.textContent = String(view.name);
        link.href = "?" + new URLSearchParams(String(view.query));
        if (view.query === here) link.setAttribute("aria-current", "true");
        return link;
      }));
      const known = read().some((view) => view.query === here);
      save.hidden = !here;
      save.textContent = known ? "Forget this view" : "Save this view";
    };
    save.onclick = () => {
      const rest = read().filter((view) => view.query !== here);
      if (rest.length < read().length) { write(rest); show(); return; }
      asking.returnValue = "";
      asking.showModal();
    };
    asking.onclose = () => {
      const given = one("input", asking).value.trim();
      if (asking.returnValue !== "save" || !given) return;
      write([...read(), { name: given.slice(0, 40), query: here }]);
      show();
      say("Saved in this browser");
    };
    show();
  };

  // Live updates: the page names what it shows, is told what has changed, and takes those parts from a fresh copy of itself.
  let source, timer, paused = false, again = false, busy = false, failures = 0;
  const watched = () => all("[data-id][data-rev]").map((part) => part.dataset.id + ":" + part.dataset.rev).slice(0, 60);
  const pause = one("[data-pause]");
  // How often, for screens and people that would rather not have everything at once; this browser keeps which.
  const RATES = [["at once", 0], ["every 30 s", 30], ["every 5 min", 300]];
  const pace = one("[data-rate]");
  let rate = Math.max(RATES.findIndex(([words]) => words === kept("amends.updates")), 0);
  const isLive = () => watched().length > 0 || one("[data-every]");
  const refresh = async (changed) => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (!answer.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      let count = 0;
      for (const part of all("[data-live]")) {
        const other = one('[data-live="' + CSS.escape(part.dataset.live) + '"]', fresh);
        if (!other) continue;
        if (part.contains(document.activeElement) && document.activeElement.matches("input[type=text],textarea,select")) continue;
        // A row says nothing new at the revision that it has.
        if (part.tagName === "TR" && part.dataset.rev === other.dataset.rev) continue;
        const open = new Map(all("details", part).map((details, at) => [details.id || at, details.open]));
        const checked = new Set(all("input:checked", part).map((box) => box.name + box.value));
        const places = all("a[href],button,summary", part);
        const focus = places.indexOf(document.activeElement);
        const scrolled = all(".scroll", part).map((area) => [area.scrollLeft, area.scrollTop]);
        const mine = document.importNode(other, true);
        all("details", mine).forEach((details, at) => { const was = open.get(details.id || at); if (was !== undefined) details.open = was; });
        all("input[type=checkbox]", mine).forEach((box) => { box.checked = checked.has(box.name + box.value); });
        if (part.classList.contains("at")) mine.classList.add("at");
        if (part.tagName === "TR") mine.classList.add("changed");
        part.replaceWith(mine);
        all(".scroll", mine).forEach((area, at) => { if (scrolled[at]) [area.scrollLeft, area.scrollTop] = scrolled[at]; });
        if (focus >= 0) all("a[href],button,summary", mine)[focus]?.focus({ preventScroll: true });
        count += 1;
      }
      if (count) { times(); copying(); if (changed) say(changed === 1 ? "One saga has changed" : changed + " sagas have changed"); }
    } catch { failures += 1; } finally {
      busy = false;
      if (again) { again = false; refresh(changed); }
    }
  };
  const stop = () => { source?.close(); source = undefined; clearInterval(timer); timer = undefined; };
  const poll = (seconds) => {
    timer = setInterval(async () => {
      try {
        const answer = await fetch(root + "revisions?ids=" + watched().join(","), { credentials: "same-origin" });
        const told = answer.ok ? await answer.json() : { changed: [] };
        if (told.changed.length) refresh(told.changed.length);
      } catch { /* the next look may come through */ }
    }, seconds * 1000);
  };
  const start = () => {
    stop();
    if (paused || document.hidden) return;
    const [, seldom] = RATES[rate];
    const every = Number(one("[data-every]")?.dataset.every);
    if (every) { timer = setInterval(() => refresh(0), (seldom || every) * 1000); return; }
    if (!watched().length) return;
    if (seldom || !window.EventSource) { poll(seldom || 5); return; }
    source = new EventSource(root + "events?ids=" + watched().join(","));
    source.addEventListener("changed", async (event) => { failures = 0; await refresh(event.data.split(",").length); });
    source.onerror = () => {
      failures += 1;
      stop();
      if (failures > 3) poll(5); else setTimeout(start, 1000 * failures);
    };
  };
  const togglePause = () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    pause.setAttribute("aria-pressed", String(paused));
    say(paused ? "Updates are paused" : "Updates go on");
    if (!paused) refresh(0);
    start();
  };
  const namePace = () => { pace.textContent = "Updates: " + RATES[rate][0]; };
  const turnPace = () => {
    rate = (rate + 1) % RATES.length;
    keep("amends.updates", RATES[rate][0]);
    namePace();
    say("This page is brought up to date " + RATES[rate][0] + (paused ? ", once updates go on" : ""));
    start();
  };
  if (pause && pace && isLive()) {
    pause.hidden = pace.hidden = false;
    pause.onclick = togglePause;
    pace.onclick = turnPace;
    namePace();
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(0); start(); });
    addEventListener("pagehide", stop);
    addEventListener("pageshow", (event) => { if (event.persisted) { if (!paused) refresh(0); start(); } });
    start();
  }

  // Shortcuts.
  const sheet = one("#keys");
  const keys = one("[data-keys]");
  if (keys && sheet) { keys.hidden = false; keys.onclick = () => sheet.showModal(); }
  let wantsPlace = false;
  const rows = () => all("tr[data-row]");
  const move = (by) => {
    const list = rows();
    if (!list.length) return;
    const now = list.findIndex((row) => row.classList.contains("at"));
    const next = Math.min(Math.max(now + by, 0), list.length - 1);
    list[now]?.classList.remove("at");
    list[next].classList.add("at");
    one("a[href]", list[next])?.focus({ preventScroll: true });
    list[next].scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.matches("input:not([type=checkbox]),textarea,select");
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing || one("dialog[open]")) return;
    if (wantsPlace) {
      wantsPlace = false;
      const link = all("[data-key]").find((place) => place.dataset.key === event.key);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const at = one("tr.at");
    const actions = {
      "?": () => sheet?.showModal(),
      g: () => { wantsPlace = true; setTimeout(() => { wantsPlace = false; }, 1500); },
      "/": () => one(".filters input[type=text]")?.focus(),
      j: () => move(1),
      k: () => move(-1),
      t: turnTimes,
      p: () => { if (pause && !pause.hidden) togglePause(); },
      u: () => { if (pace && !pace.hidden) turnPace(); },
      x: () => { const box = at && one("input[name=id]", at); if (box) box.click(); },
    };
    const action = actions[event.key];
    if (action) { event.preventDefault(); action(); }
  });

  // On a phone the navigation is wider than the screen.
  one(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  nameTimes();
  times();
  copying();
  selecting();
  viewing();
})();
