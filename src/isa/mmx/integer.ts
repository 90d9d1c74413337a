// The MMX instructions, with what SSE, SSE2 and SSSE3 added for MMX registers (Intel SDM Vol. 1 chapter 9, 10.4.4, 10.4.6, 11.4.2, 12.6;
// the pages of the instructions in Vol. 2A and 2B).

import { op, select, type Val } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FEATURE } from "../sse/feature.ts";
import {
  byteShift,
  PACKED_INTEGER,
  PACKED_SHIFTS,
  type PackedInteger,
  shiftLanes,
  shuffleBytes,
} from "../sse/packed-integer.ts";
import { extractLane, insertLane, selectWords } from "../sse/shuffle.ts";
import { half, join, useSse } from "../sse/state.ts";
import { enterMmx, leaveMmx, useMmx } from "./state.ts";

/** Checks, computes the whole result of operand 0, writes it and switches to MMX state. */
function mmx(name: string, feature: string, rows: readonly string[], result: (x: Sem) => Val): Instruction {
  return {
    name,
    rows,
    feature,
    semantics: (x) => {
      useMmx(x);
      x.write(0, x.c.let(result(x)));
      enterMmx(x);
    },
  };
}

function wide(value: Val): Val {
  return op("i64x2.splat", value);
}

function binary({ name, opcode, compute, mmx: form, mmxFeature }: PackedInteger): Instruction {
  // The unpacking of low halves needs, and accesses, 32 bits only.
  const source = name.startsWith("PUNPCKL") ? "Qd" : "Qq";
  return mmx(name, mmxFeature, [`NP ${opcode} /r: Pq, ${source}`], (x) => {
    const b = x.read(1).zx();
    const a = x.read(0);
    if (form === "halves") {
      const both = x.c.let(join(a, b));
      return half(compute(both, both, x.c), 0);
    }
    // Interleaving the low halves of 128 bits makes both of the results that MMX has.
    const compute64 = form === "high" ? lowUnpack(name) : compute;
    return half(compute64(x.c.let(wide(a)), x.c.let(wide(b)), x.c), form === "high" ? 1 : 0);
  });
}

function lowUnpack(name: string): PackedInteger["compute"] {
  const low = PACKED_INTEGER.find((entry) => entry.name === name.replace("PUNPCKH", "PUNPCKL"));
  if (low === undefined) throw new Error(`${name} has no counterpart for low halves`);
  return low.compute;
}

const SHIFTS: InstructionGroup = PACKED_SHIFTS.flatMap((kind) => [
  mmx(kind.name, FEATURE.MMX, [`NP ${kind.byRegister}: Pq, Qq`], (x) => {
    const count = x.read(1);
    return half(shiftLanes(kind, wide(x.read(0)), count, x.c), 0);
  }),
  mmx(kind.name, FEATURE.MMX, [`NP ${kind.byImmediate}: Nq, Ib`], (x) =>
    half(shiftLanes(kind, wide(x.read(0)), x.c.let(x.immediate()), x.c), 0),
  ),
]);

/** PALIGNR: destination above source, shifted right by bytes; a distance of 16 or more gives zero. */
function align(x: Sem): Val {
  const source = x.read(1);
  const both = join(source, x.read(0));
  const immediate = x.c.let(x.immediate());
  return half(byteShift(both, select(immediate.ltU(16), immediate, 16)), 0);
}

/** Moves between MMX and XMM registers need both kinds of state. */
function between(name: string, row: string): Instruction {
  return {
    name,
    rows: [row],
    feature: FEATURE.SSE2,
    semantics: (x) => {
      useSse(x);
      useMmx(x);
      x.write(0, x.read(1));
      enterMmx(x);
    },
  };
}

export const MMX_INTEGER: InstructionGroup = [
  mmx("MOVD", FEATURE.MMX, ["NP 0F 6E /r: Pq, Ey"], (x) => x.read(1).zx()),
  mmx("MOVD", FEATURE.MMX, ["NP 0F 7E /r: Ey, Pq"], (x) => (x.bits(0) === 64 ? x.read(1) : x.read(1).wrap())),
  mmx("MOVQ", FEATURE.MMX, ["NP 0F 6F /r: Pq, Qq", "NP 0F 7F /r: Qq, Pq"], (x) => x.read(1)),
  mmx("MOVNTQ", FEATURE.SSE, ["NP 0F E7 /r: Mq, Pq"], (x) => x.read(1)),
  between("MOVQ2DQ", "F3 0F D6 /r: Vq, Nq"),
  between("MOVDQ2Q", "F2 0F D6 /r: Pq, Uq"),
  ...PACKED_INTEGER.filter((entry) => entry.mmx !== "none").map(binary),
  ...SHIFTS,
  mmx("PSHUFB", FEATURE.SSSE3, ["NP 0F 38 00 /r: Pq, Qq"], (x) => {
    const indexes = x.read(1);
    return half(shuffleBytes(wide(x.read(0)), wide(indexes), 8), 0);
  }),
  mmx("PALIGNR", FEATURE.SSSE3, ["NP 0F 3A 0F /r: Pq, Qq, Ib"], align),
  mmx("PSHUFW", FEATURE.SSE, ["NP 0F 70 /r: Pq, Qq, Ib"], (x) =>
    half(selectWords(x.c.let(wide(x.read(1))), x.c.let(x.immediate()), 0), 0),
  ),
  mmx("PEXTRW", FEATURE.SSE, ["NP 0F C5 /r: Gd, Nq, Ib"], (x) =>
    extractLane(wide(x.read(1)), 16, x.immediate().and(3)),
  ),
  mmx("PINSRW", FEATURE.SSE, ["NP 0F C4 /r: Pq, Rd, Ib", "NP 0F C4 /r: Pq, Mw, Ib"], (x) => {
    const element = x.read(1);
    return half(insertLane(wide(x.read(0)), 16, x.immediate().and(3), element), 0);
  }),
  mmx("PMOVMSKB", FEATURE.SSE, ["NP 0F D7 /r: Gd, Nq"], (x) => op("i8x16.bitmask", wide(x.read(1))).and(0xff)),
  {
    name: "EMMS",
    rows: ["NP 0F 77"],
    feature: FEATURE.MMX,
    semantics: (x) => {
      useMmx(x);
      leaveMmx(x);
    },
  },
];
