// Pictures, and cards that come in pages and are walked through with the arrow keys.
function picture(place, alt) {
  if (place === null) return el("div", { class: "no-image", role: "img", "aria-label": "no picture" }, "no picture");
  const [source, width, height, small] = data.pictures[place];
  return el("img", { src: source, alt, width, height, class: small ? "small" : null, decoding: "async" });
}

// {node, draw(cards, page, turn)}: `per` cards a page.
function makePager(label, per) {
  const list = el("ul", { class: "cards samples", "aria-label": label });
  const where = el("span", { class: "faint" });
  let turn = () => {};
  const [before, after] = [button("← before", () => turn(-1)), button("next →", () => turn(1))];
  list.addEventListener("keydown", (event) => {
    const cards = [...list.children];
    const at = cards.indexOf(event.target.closest("li"));
    const across = Math.max(1, cards.filter((c) => c.offsetTop === cards[0].offsetTop).length);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (event.key === "PageDown" || event.key === "PageUp") {
      event.preventDefault();
      turn(event.key === "PageDown" ? 1 : -1, true);
    }
    if (!step || at < 0) return;
    event.preventDefault();
    const next = cards[Math.max(0, Math.min(at + step, cards.length - 1))];
    cards.forEach((c) => (c.tabIndex = c === next ? 0 : -1));
    next.focus();
  });
  const draw = (cards, page, go) => {
    const pages = Math.max(1, Math.ceil(cards.length / per));
    const now = Math.min(page, pages - 1);
    turn = (by, focus) => {
      const next = Math.max(0, Math.min(now + by, pages - 1));
      if (next === now) return;
      go(next);
      if (focus) list.firstChild?.focus();
    };
    list.replaceChildren(...cards.slice(now * per, (now + 1) * per).map((make, i) => {
      const card = make();
      card.tabIndex = i ? -1 : 0;
      return card;
    }));
    before.disabled = now === 0;
    after.disabled = now === pages - 1;
    where.textContent = cards.length ? `${now * per + 1}–${Math.min(cards.length, (now + 1) * per)} of ${cards.length}` : "none";
  };
  return { node: el("div", {}, list, el("div", { class: "tools turning" }, before, where, after)), draw };
}
