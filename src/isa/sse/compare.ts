// Floating-point comparisons, minimum and maximum (Intel SDM Vol. 1 4.9.1, 10.4.2, 11.4.1.4; the pages of the instructions in Vol. 2A and
// 2B). The host compares exactly; only NaNs and denormal operands need more, for their flags and for denormals-are-zeros.

import { op, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { MXCSR } from "../state.ts";
import { exact } from "./exact.ts";
import { FEATURE } from "./feature.ts";
import { raiseFloat } from "./float-exceptions.ts";
import {
  bitsLane,
  DOUBLE,
  narrow,
  packed,
  type Shape,
  SINGLE,
  scalar,
  setLane,
  toBits,
  toFloat,
} from "./float-shape.ts";
import { useSse } from "./state.ts";

/** (a, b, mxcsr, QNaNs raise IE) to (a, b, flags), lane by lane. */
function packedComparison(s: Shape): Helper {
  return helper(
    `comparison${s.packed}`,
    ["v128", "v128", "i32", "i32"],
    ["v128", "v128", "i32"],
    (x, a, b, mxcsr, quietToo) => {
      const { c } = x;
      const first = c.local("v128", a);
      const second = c.local("v128", b);
      const flags = c.local("i32", 0);
      for (let lane = 0; lane < s.lanes; lane++) {
        const [bitsA, bitsB, raised] = x.callMany(
          exact(s.format).comparison,
          bitsLane(s, a, lane),
          bitsLane(s, b, lane),
          mxcsr,
          quietToo,
        );
        c.set(first, setLane(s, first, lane, narrow(s, bitsA)));
        c.set(second, setLane(s, second, lane, narrow(s, bitsB)));
        c.set(flags, flags.or(raised));
      }
      x.done(first, second, flags);
    },
  );
}

const PACKED_COMPARISON = { 32: packedComparison(SINGLE), 64: packedComparison(DOUBLE) } as const;

/** Operands 0 and 1 as they are to be compared, their exceptions raised; fixed values. */
function comparedVectors(x: Sem, s: Shape, quietToo: Val | number): readonly [Val, Val] {
  const { c } = x;
  const b = x.readAligned(1);
  const a = x.read(0);
  const doubtful = [a, b].filter((_, n) => x.isMemory(n) || !x.isOrdinary(n, s.packed));
  if (doubtful.length === 0) return [a, b];
  const first = c.local("v128", a);
  const second = c.local("v128", b);
  c.if(
    packed.all(
      s,
      doubtful.map((value) => packed.ordinary(s, value)).reduce((all, one) => op("v128.and", all, one)),
    ),
    () => {},
    () => {
      const slow = PACKED_COMPARISON[s.format.bits];
      const [newA, newB, flags] = x.callMany(slow, a, b, x.get(MXCSR), quietToo);
      x.invoke(raiseFloat, flags);
      c.set(first, newA);
      c.set(second, newB);
    },
    "likely",
  );
  return [first, second];
}

/** The same for scalars: floating-point values. */
function comparedScalars(x: Sem, s: Shape, quietToo: Val | number): readonly [Val, Val] {
  const { c } = x;
  const b = x.readFloat(1, s.scalar);
  const a = x.readFloat(0, s.scalar);
  const doubtful = [a, b].filter((_, n) => x.isMemory(n) || !x.isOrdinary(n, s.scalar));
  if (doubtful.length === 0) return [a, b];
  const first = c.local(s.scalar, a);
  const second = c.local(s.scalar, b);
  c.if(
    doubtful.map((value) => scalar.ordinary(s, value)).reduce((all, one) => all.and(one)),
    () => {},
    () => {
      const compare = exact(s.format).comparison;
      const [newA, newB, flags] = x.callMany(compare, toBits(s, a).zx(), toBits(s, b).zx(), x.get(MXCSR), quietToo);
      x.invoke(raiseFloat, flags);
      c.set(first, toFloat(s, narrow(s, newA)));
      c.set(second, toFloat(s, narrow(s, newB)));
    },
    "likely",
  );
  return [first, second];
}

/** MIN and MAX: the second operand where both are zero or any is a NaN; all NaNs are invalid. */
function extreme(name: string, opcode: string, order: "lt" | "gt"): InstructionGroup {
  const packedForm = (suffix: string, feature: string, prefix: string, s: Shape): Instruction => ({
    name: `${name}${suffix}`,
    rows: [`${prefix} ${opcode} /r: Vx, Wx`],
    feature,
    semantics: (x) => {
      useSse(x);
      const [a, b] = comparedVectors(x, s, 1);
      x.write(0, op("v128.bitselect", a, b, op(`${s.packed}.${order}`, a, b)));
    },
  });
  const scalarForm = (suffix: string, feature: string, prefix: string, s: Shape): Instruction => ({
    name: `${name}${suffix}`,
    rows: [`${prefix} ${opcode} /r: Vx, W${s.letter}`],
    feature,
    semantics: (x) => {
      useSse(x);
      const [a, b] = comparedScalars(x, s, 1);
      x.writeFloat(0, select(op(`${s.scalar}.${order}`, a, b), a, b));
    },
  });
  return [
    packedForm("PS", FEATURE.SSE, "NP", SINGLE),
    packedForm("PD", FEATURE.SSE2, "66", DOUBLE),
    scalarForm("SS", FEATURE.SSE, "F3", SINGLE),
    scalarForm("SD", FEATURE.SSE2, "F2", DOUBLE),
  ];
}

/** Predicates 0 to 3 are EQ, LT, LE and UNORD, 4 to 7 their opposites; LT, LE and those opposites find QNaNs invalid
 *  (SDM Vol. 2A CMPPD, table 3-1). */
function signalsQuiet(predicate: Val): Val {
  return predicate.add(1).shrU(1).and(1);
}

/** CMPPS: masks of the lanes for which the predicate holds. */
function compareVectors(s: Shape) {
  return (x: Sem): void => {
    useSse(x);
    const { c } = x;
    const predicate = c.let(x.immediate());
    const [a, b] = comparedVectors(x, s, signalsQuiet(predicate));
    const relation = (name: string): Val => op(`${s.packed}.${name}`, a, b);
    const unordered = op("v128.not", op("v128.and", op(`${s.packed}.eq`, a, a), op(`${s.packed}.eq`, b, b)));
    const upper = select(predicate.and(1), unordered, relation("le"));
    const lower = select(predicate.and(1), relation("lt"), relation("eq"));
    const mask = c.let(select(predicate.and(2), upper, lower));
    x.write(0, op("v128.xor", mask, op("i32x4.splat", predicate.bits(2, 1).neg())));
  };
}

function compareScalars(s: Shape) {
  return (x: Sem): void => {
    useSse(x);
    const { c } = x;
    const predicate = c.let(x.immediate());
    const [a, b] = comparedScalars(x, s, signalsQuiet(predicate));
    const relation = (name: string): Val => op(`${s.scalar}.${name}`, a, b);
    const unordered = op(`${s.scalar}.ne`, a, a).or(op(`${s.scalar}.ne`, b, b));
    const upper = select(predicate.and(1), unordered, relation("le"));
    const lower = select(predicate.and(1), relation("lt"), relation("eq"));
    const holds = c.let(select(predicate.and(2), upper, lower).xor(predicate.bits(2, 1)));
    const mask = s.integer === "i64" ? holds.zx().neg() : holds.neg();
    x.writeFloat(0, toFloat(s, mask));
  };
}

/** COMISS and UCOMISS: ZF, PF and CF are all set for unordered; CF for less, ZF for equal; OF, SF and AF cleared. */
function compareToFlags(s: Shape, quietToo: 0 | 1) {
  return (x: Sem): void => {
    useSse(x);
    const [a, b] = comparedScalars(x, s, quietToo);
    x.flagsCompare(a, b);
  };
}

function flagsForm(name: string, feature: string, row: string, s: Shape, quietToo: 0 | 1): Instruction {
  return {
    name,
    rows: [`${row} /r: Vx, W${s.letter}`],
    feature,
    writes: "OSZAPC",
    semantics: compareToFlags(s, quietToo),
  };
}

export const SSE_COMPARISONS: InstructionGroup = [
  ...extreme("MIN", "0F 5D", "lt"),
  ...extreme("MAX", "0F 5F", "gt"),
  { name: "CMPPS", rows: ["NP 0F C2 /r: Vx, Wx, Ib"], feature: FEATURE.SSE, semantics: compareVectors(SINGLE) },
  { name: "CMPPD", rows: ["66 0F C2 /r: Vx, Wx, Ib"], feature: FEATURE.SSE2, semantics: compareVectors(DOUBLE) },
  { name: "CMPSS", rows: ["F3 0F C2 /r: Vx, Wd, Ib"], feature: FEATURE.SSE, semantics: compareScalars(SINGLE) },
  { name: "CMPSD", rows: ["F2 0F C2 /r: Vx, Wq, Ib"], feature: FEATURE.SSE2, semantics: compareScalars(DOUBLE) },
  flagsForm("UCOMISS", FEATURE.SSE, "NP 0F 2E", SINGLE, 0),
  flagsForm("UCOMISD", FEATURE.SSE2, "66 0F 2E", DOUBLE, 0),
  flagsForm("COMISS", FEATURE.SSE, "NP 0F 2F", SINGLE, 1),
  flagsForm("COMISD", FEATURE.SSE2, "66 0F 2F", DOUBLE, 1),
];
