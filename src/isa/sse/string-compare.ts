// PCMPxSTRx: comparisons of strings in XMM registers (Intel SDM Vol. 1 12.10.3; Vol. 2B 4.1 "Imm8 control byte operation"). The first operand is
// the set, the ranges or the string looked for; the result has a bit for each element of the second.

import type { Code } from "../../wasm/code.ts";
import { i32, laneOp, op, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FLAG, GPR } from "../state.ts";
import { FEATURE } from "./feature.ts";
import { lanes, useSse, ZERO } from "./state.ts";

/** Fields of the immediate. */
const WORDS = 1 << 0;
const SIGNED = 1 << 1;
const AGGREGATION_SHIFT = 2;
const POLARITY_NEGATE = 1 << 4;
const POLARITY_MASKED = 1 << 5;
/** Index: the highest bit instead of the lowest; mask: elements instead of bits. */
const OUTPUT = 1 << 6;

const AGGREGATION = { ANY: 0, RANGES: 1, EACH: 2, ORDERED: 3 } as const;

/** A vector of copies of one element. */
function broadcast(value: Val, shape: "i8x16" | "i16x8", number: Val): Val {
  const index = shape === "i8x16" ? op("i8x16.splat", number) : op("i16x8.splat", number.mul(0x0202).add(0x0100));
  return op("i8x16.swizzle", value, index);
}

/** Bits of the elements for which the comparisons that the aggregation makes hold: "IntRes1", before those past the ends count. */
function aggregate(c: Code, shape: "i8x16" | "i16x8", a: Val, b: Val, lengthA: Val, lengthB: Val, immediate: Val): Val {
  const count = shape === "i8x16" ? 16 : 8;
  const all = (1 << count) - 1;
  const bits = (mask: Val): Val => op(`${shape}.bitmask`, mask);
  const valid = (length: Val): Val => i32(1).shl(length).sub(1);
  const validB = c.let(valid(lengthB));
  const result = c.local("i32", 0);
  const j = c.local("i32", 0);
  const eachElement = (step: number, limit: Val, body: () => void): void => {
    c.block((done) => {
      c.loop((again) => {
        c.brIf(done, j.add(step - 1).geU(limit));
        body();
        c.set(j, j.add(step));
        c.br(again);
      });
    });
  };
  c.switch(
    immediate.bits(AGGREGATION_SHIFT, 2),
    [
      [
        [AGGREGATION.ANY],
        () => {
          eachElement(1, lengthA, () => c.set(result, result.or(bits(op(`${shape}.eq`, b, broadcast(a, shape, j))))));
          c.set(result, result.and(validB));
        },
      ],
      [
        [AGGREGATION.RANGES],
        () => {
          // A range whose upper end is past the end of the first operand holds nothing.
          eachElement(2, lengthA, () => {
            const low = c.let(broadcast(a, shape, j));
            const high = c.let(broadcast(a, shape, j.add(1)));
            const within = (sign: "s" | "u"): Val =>
              op("v128.and", op(`${shape}.ge_${sign}`, b, low), op(`${shape}.le_${sign}`, b, high));
            c.if(
              immediate.and(SIGNED),
              () => c.set(result, result.or(bits(within("s")))),
              () => c.set(result, result.or(bits(within("u")))),
            );
          });
          c.set(result, result.and(validB));
        },
      ],
      [
        [AGGREGATION.EACH],
        () => {
          // Two elements past the ends are equal, one is not.
          const equal = c.let(bits(op(`${shape}.eq`, a, b)));
          const validA = c.let(valid(lengthA));
          const both = validA.and(validB);
          const neither = validA.or(validB).xor(all);
          c.set(result, equal.and(both).or(neither));
        },
      ],
    ],
    () => {
      c.set(result, all);
      eachElement(1, lengthA, () => {
        const matches = bits(op(`${shape}.eq`, b, broadcast(a, shape, j))).and(validB);
        // Elements beyond the register are not compared.
        const beyond = i32(all).shrU(j).xor(all);
        c.set(result, result.and(matches.shrU(j).or(beyond)));
      });
    },
  );
  return result;
}

/** (a, b, length of a, length of b, immediate) to (the final bits, flags). Lengths are in elements. */
const compareStrings = helper(
  "compareStrings",
  ["v128", "v128", "i32", "i32", "i32"],
  ["i32", "i32"],
  (x, a, b, lengthA, lengthB, immediate) => {
    const { c } = x;
    const words = c.let(immediate.and(WORDS));
    const result = c.local("i32");
    c.if(
      words,
      () => c.set(result, aggregate(c, "i16x8", a, b, lengthA, lengthB, immediate)),
      () => c.set(result, aggregate(c, "i8x16", a, b, lengthA, lengthB, immediate)),
    );
    const count = c.let(select(words, i32(8), 16));
    c.if(immediate.and(POLARITY_NEGATE), () => {
      const length = select(immediate.and(POLARITY_MASKED), lengthB, count);
      c.set(result, result.xor(i32(1).shl(length).sub(1)));
    });
    const carry = result.ne(0).mul(FLAG.CF);
    const zero = lengthB.ltU(count).mul(FLAG.ZF);
    const sign = lengthA.ltU(count).mul(FLAG.SF);
    const overflow = result.and(1).mul(FLAG.OF);
    x.done(result, carry.or(zero).or(sign).or(overflow));
  },
);

/** Elements before the first that is zero. */
const implicitLength = helper("implicitLength", ["v128", "i32"], ["i32"], (x, value, words) => {
  const { c } = x;
  c.if(words, () =>
    x.done(
      op("i16x8.bitmask", op("i16x8.eq", value, ZERO))
        .or(1 << 8)
        .ctz(),
    ),
  );
  x.done(
    op("i8x16.bitmask", op("i8x16.eq", value, ZERO))
      .or(1 << 16)
      .ctz(),
  );
});

/** The absolute value of a length register, but no more than fit the vector. */
function explicitLength(x: Sem, register: number, count: Val): Val {
  const { c } = x;
  const bits = x.opsize === 64 ? 64 : 32;
  const value = c.let(x.gpr(register, bits));
  // The least integer stays as it is, and is large unsigned.
  const absolute = c.let(select(value.ltS(0), value.neg(), value));
  return select(absolute.ltU(bits === 64 ? count.zx() : count), absolute.wrap(), count);
}

/** The final bits as a mask of elements. */
const expandMask = helper("expandMask", ["i32", "i32"], ["v128"], (x, bits, words) => {
  const { c } = x;
  const each = [1, 2, 4, 8, 16, 32, 64, 128];
  c.if(words, () => {
    const places = lanes(each);
    x.done(op("i16x8.eq", op("v128.and", op("i16x8.splat", bits), places), places));
  });
  const places = lanes([...each, ...each]);
  const bytes = op("i8x16.swizzle", op("i16x8.splat", bits), lanes([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]));
  x.done(op("i8x16.eq", op("v128.and", bytes, places), places));
});

function stringCompare(name: string, opcode: string, explicit: boolean, index: boolean): Instruction {
  return {
    name,
    rows: [`66 0F 3A ${opcode} /r: Vx, Wx, Ib`],
    feature: FEATURE.SSE42,
    writes: "OSZAPC",
    semantics: (x) => {
      useSse(x);
      const { c } = x;
      const b = x.read(1);
      const a = x.read(0);
      const immediate = c.let(x.immediate());
      const words = c.let(immediate.and(WORDS));
      const count = c.let(select(words, i32(8), 16));
      const lengthOf = (value: Val, register: number): Val =>
        explicit ? c.let(explicitLength(x, register, count)) : x.call(implicitLength, value, words);
      const lengthA = lengthOf(a, GPR.RAX);
      const lengthB = lengthOf(b, GPR.RDX);
      const [result, flags] = x.callMany(compareStrings, a, b, lengthA, lengthB, immediate);
      if (index) {
        const lowest = result.ctz();
        const highest = i32(31).sub(result.clz());
        const found = select(immediate.and(OUTPUT), highest, lowest);
        x.setGpr(GPR.RCX, 32, select(result, found, count));
      } else {
        const narrow = laneOp("i32x4.replace_lane", [0], ZERO, result);
        x.setXmm(0, select(immediate.and(OUTPUT), x.call(expandMask, result, words), narrow));
      }
      x.setArithmeticFlags(flags);
    },
  };
}

export const SSE_STRINGS: InstructionGroup = [
  stringCompare("PCMPESTRM", "60", true, false),
  stringCompare("PCMPESTRI", "61", true, true),
  stringCompare("PCMPISTRM", "62", false, false),
  stringCompare("PCMPISTRI", "63", false, true),
];
