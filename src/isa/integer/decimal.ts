// Decimal adjustment (SDM Vol. 2A: AAA, AAD, AAM, AAS, DAA, DAS); none of it exists in 64-bit mode. Undefined flags get the results' own.

import { i32, select, type Val } from "../../wasm/value.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FLAG, GPR, VECTOR } from "../state.ts";

/** CF and AF set, SF, ZF, PF from AL, OF cleared. */
function setFlags(x: Sem, al: Val, carry: Val, adjust: Val): void {
  const { c } = x;
  const cf = c.let(carry);
  const af = c.let(adjust);
  x.flagsResult(8, al, cf, i32(0));
  x.setSomeFlags(FLAG.AF, af.shl(4));
}

/** DAA and DAS: each digit of AL corrected by 6 where it overflowed. */
function adjustPacked(subtract: boolean): (x: Sem) => void {
  return (x) => {
    const { c } = x;
    const flags = c.let(x.arithmeticFlags());
    const old = c.let(x.gpr(GPR.RAX, 8));
    const low = c.let(old.and(0xf).gtU(9).or(flags.bits(4, 1)));
    const carry = c.let(flags.and(1));
    const high = c.let(old.gtU(0x99).or(carry));
    const correction = c.let(low.mul(6).add(high.mul(0x60)));
    const result = c.let((subtract ? old.sub(correction) : old.add(correction)).and(0xff));
    // DAS: a borrow out of the low digit's correction counts even where the high digit needs none.
    const borrow = subtract ? low.and(old.ltU(6)) : i32(0);
    const carryOut = c.let(high.or(borrow));
    x.setGpr(GPR.RAX, 8, result);
    setFlags(x, result, carryOut, low);
  };
}

/** AAA and AAS: one unpacked digit in AL, its carry into AH. */
function adjustUnpacked(subtract: boolean): (x: Sem) => void {
  return (x) => {
    const { c } = x;
    const ax = c.let(x.gpr(GPR.RAX, 16));
    const adjust = c.let(ax.and(0xf).gtU(9).or(x.arithmeticFlags().bits(4, 1)));
    const correction = c.let(select(adjust, i32(0x106), 0));
    const moved = c.let(subtract ? ax.sub(correction) : ax.add(correction));
    x.setGpr(GPR.RAX, 16, moved.and(0xff0f));
    setFlags(x, c.let(moved.and(0xf)), adjust, adjust);
  };
}

const CARRIES = { reads: "A", writes: "AC", undefined: "OSZP" };
const RESULT = { writes: "SZP", undefined: "OAC" };

export const DECIMAL: InstructionGroup = [
  { name: "DAA", rows: ["27 ; i64"], reads: "AC", writes: "SZAPC", undefined: "O", semantics: adjustPacked(false) },
  { name: "DAS", rows: ["2F ; i64"], reads: "AC", writes: "SZAPC", undefined: "O", semantics: adjustPacked(true) },
  { name: "AAA", rows: ["37 ; i64"], ...CARRIES, semantics: adjustUnpacked(false) },
  { name: "AAS", rows: ["3F ; i64"], ...CARRIES, semantics: adjustUnpacked(true) },
  {
    name: "AAM",
    rows: ["D4: Ib ; i64"],
    ...RESULT,
    semantics: (x) => {
      const { c } = x;
      const base = x.read(0);
      x.raiseIf(base.eqz(), VECTOR.DE);
      const al = c.let(x.gpr(GPR.RAX, 8));
      const low = c.let(al.remU(base));
      x.setGpr(GPR.RAX, 16, al.divU(base).shl(8).or(low));
      x.flagsLogic(8, low);
    },
  },
  {
    name: "AAD",
    rows: ["D5: Ib ; i64"],
    ...RESULT,
    semantics: (x) => {
      const { c } = x;
      const ax = c.let(x.gpr(GPR.RAX, 16));
      const result = c.let(
        ax
          .and(0xff)
          .add(ax.shrU(8).mul(x.read(0)))
          .and(0xff),
      );
      x.setGpr(GPR.RAX, 16, result);
      x.flagsLogic(8, result);
    },
  },
];
