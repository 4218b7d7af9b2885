// What a reader of this page would notice. Evaluated by the test, not a part of the page.
(() => {
  const name = (text) => text.trim().replace(/\s+/g, " ").slice(0, 60);
  const texts = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode()); ) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("title")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      if (r.width < 1 || r.height < 1) continue;
      // The box of a glyph is higher than its ink.
      const ink = r.height * 0.15;
      texts.push({ text: name(node.data), parent, left: r.left, right: r.right, top: r.top + ink, bottom: r.bottom - ink });
    }
  }
  const overlaps = [];
  texts.sort((a, b) => a.top - b.top);
  texts.forEach((a, i) => {
    for (let j = i + 1; j < texts.length && texts[j].top < a.bottom; j++) {
      const b = texts[j];
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - b.top > 1)
        overlaps.push(`"${a.text}" and "${b.text}"`);
    }
  });
  const viewWidth = document.documentElement.clientWidth;
  const outside = texts.filter((t) => t.right > viewWidth + 0.5 || t.left < -0.5).map((t) => t.text);

  const channels = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = new Set();
  for (const t of texts) {
    const style = getComputedStyle(t.parent);
    const own = light(t.parent.closest("svg") ? style.fill : style.color);
    const ground = light(behind(t.parent));
    const contrast = (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
    if (contrast < 4.5) faint.add(`"${t.text}": ${contrast.toFixed(2)}`);
  }
  const lanes = [...document.querySelectorAll(".lane:not(.axis)")].map((lane) => {
    const track = lane.querySelector(".track").getBoundingClientRect();
    const bars = [...lane.querySelectorAll("rect.bar")];
    const isSeen = (bar) => {
      const r = bar.getBoundingClientRect();
      return r.width >= 1 && r.height >= 4 && r.left >= track.left - 1 && r.right <= track.right + 1 && getComputedStyle(bar).fill !== "rgb(0, 0, 0)";
    };
    const text = (selector) => lane.querySelector(selector).textContent.trim();
    return {
      name: text(".name"),
      took: text(".took"),
      bars: bars.filter(isSeen).map((bar) => bar.getAttribute("class").replace("bar ", "")),
      lost: bars.filter((bar) => !isSeen(bar)).length,
    };
  });
  return {
    page_width: document.documentElement.scrollWidth,
    view_width: viewWidth,
    outside, overlaps, faint: [...faint], lanes,
    text: document.body.innerText,
    first_screen: texts.filter((t) => t.bottom <= 800).map((t) => t.text).join("\n"),
  };
})()
