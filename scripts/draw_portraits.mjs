// Drawn portraits for test_images/art: designs under CC0 (lorelei, notionists, open-peeps, pixel-art), as SVG files.
//
//   npm install --prefix /tmp/portraits @dicebear/core@9.4.3 @dicebear/collection@9.4.3
//   cp scripts/draw_portraits.mjs /tmp/portraits && node /tmp/portraits/draw_portraits.mjs /tmp/portraits
//
// Then draw each at 256x256 with resvg (`resvg_py.svg_to_bytes`) into test_images/art/NAME.png. Only the pictures are kept.

import fs from "node:fs";
import path from "node:path";
import { createAvatar } from "@dicebear/core";
import { lorelei, notionists, openPeeps, pixelArt } from "@dicebear/collection";

const PORTRAITS = [
  // [file, design, seed, background]: grounds far from each other, because the style carries the colours
  ["lorelei_curls", lorelei, "diffstyle 0", "2f6fa8"],
  ["lorelei_glasses", lorelei, "diffstyle 1", "e8b13a"],
  ["notionists_planet", notionists, "diffstyle 2", "d9576b"],
  ["notionists_robe", notionists, "diffstyle 5", "3f9b86"],
  ["open_peeps_glasses", openPeeps, "diffstyle 3", "f2e3c6"],
  ["open_peeps_beard", openPeeps, "diffstyle 5", "8d6bb0"],
  ["pixel_art_blue_hair", pixelArt, "diffstyle 2", "b8e0c8"],
  ["pixel_art_red_hair", pixelArt, "diffstyle 7", "23324d"],
];

const out = process.argv[2] ?? ".";
for (const [name, design, seed, ground] of PORTRAITS) {
  const svg = createAvatar(design, { seed, size: 256, backgroundColor: [ground] }).toString();
  fs.writeFileSync(path.join(out, `${name}.svg`), svg);
}
