// CRC32: the cyclic redundancy check with polynomial 11EDC6F41H, bit-reflected (Intel SDM Vol. 2A CRC32). Uses general registers only.

import { helper } from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FEATURE } from "./feature.ts";

const REFLECTED = 0x82f63b78;

/** (checksum, value, its bits) to the new checksum. */
const accumulate = helper("crc32", ["i32", "i64", "i32"], ["i32"], (x, checksum, value, bits) => {
  const { c } = x;
  const crc = c.local("i32", checksum);
  const rest = c.local("i64", value);
  const left = c.local("i32", bits);
  c.loop((again) => {
    c.set(crc, crc.xor(rest.wrap().and(0xff)));
    for (let bit = 0; bit < 8; bit++) c.set(crc, crc.shrU(1).xor(crc.and(1).neg().and(REFLECTED)));
    c.set(rest, rest.shrU(8));
    c.set(left, left.sub(8));
    c.brIf(again, left);
  });
  x.done(crc);
});

function crc32(x: Sem): void {
  const value = x.read(1);
  x.write(0, x.call(accumulate, x.read(0), value.zx(), x.bits(1)));
}

export const CRC32: InstructionGroup = [
  {
    name: "CRC32",
    rows: ["F2 0F 38 F0 /r: Gd, Eb", "F2 0F 38 F1 /r: Gd, Ev"],
    feature: FEATURE.SSE42,
    semantics: crc32,
  },
];
