// Transcendental instructions (Intel SDM Vol. 1 8.3.7; Vol. 2A F2XM1, FCOS, FPATAN, FPTAN, FSIN, FSINCOS, FYL2X, FYL2XP1).

import { i32, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Env } from "../semantics.ts";
import { x87PowerLess1, x87TimesLogarithm, x87TimesLogarithmPlus1 } from "./exponential.ts";
import { BIAS, exponentOf, MAX_EXPONENT, TOP_BIT } from "./format.ts";
import { maskedFlags, onRegisters } from "./operands.ts";
import { packed, quickly } from "./quick.ts";
import {
  BEFORE_RESULT,
  filled,
  INDEFINITE_SE,
  INDEFINITE_SIG,
  moveTop,
  readStack,
  STACK_OVERFLOW,
  STACK_UNDERFLOW,
  STATUS,
  withDenormal,
  writeStack,
  x87Result,
  x87Status,
} from "./state.ts";
import { ANGLE_LIMIT, x87ArcTangent, x87Sine, x87SineCosine, x87Tangent } from "./trigonometric.ts";

/** ST(1) from ST(0) and ST(1), and a pop. */
function onTwo(name: string, row: string, compute: Helper): Instruction {
  const quick = packed(`${compute.name}Packed`, compute);
  const general = helper(`${compute.name}Instruction`, [], [], (x) => {
    x.c.if(
      filled(x, 0).and(filled(x, 1)),
      () => {
        const a = readStack(x, 0);
        const b = readStack(x, 1);
        const [sig, se, flags] = x.callMany(compute, a.sig, a.se, b.sig, b.se);
        x.invoke(x87Result, 1, sig, se, flags, 1);
      },
      () => x.invoke(x87Result, 1, INDEFINITE_SIG, INDEFINITE_SE, STACK_UNDERFLOW, 1),
      "likely",
    );
    x.done();
  });
  return {
    name,
    rows: [row],
    semantics: (x) =>
      onRegisters(
        x,
        (stack) => {
          const a = stack.read(0);
          const b = stack.read(1);
          const result = quickly(x, stack, quick, a.sig, a.se, b.sig, b.se);
          stack.note();
          stack.report(result.flags);
          stack.write(1, result.sig, result.se);
          stack.pop();
        },
        () => x.invoke(general),
      ),
  };
}

const x87PowerPacked = packed("x87PowerPacked", x87PowerLess1);
const x87PowerInstruction = helper("x87PowerInstruction", [], [], (x) => {
  x.c.if(
    filled(x, 0),
    () => {
      const a = readStack(x, 0);
      const [sig, se, flags] = x.callMany(x87PowerLess1, a.sig, a.se);
      x.invoke(x87Result, 0, sig, se, flags, 0);
    },
    () => x.invoke(x87Result, 0, INDEFINITE_SIG, INDEFINITE_SE, STACK_UNDERFLOW, 0),
    "likely",
  );
  x.done();
});

/** An angle of 2^63 or more, which is left alone and told by C2. */
function beyond(sig: Val, se: Val): Val {
  return exponentOf(se)
    .sub(ANGLE_LIMIT)
    .ltU(MAX_EXPONENT - ANGLE_LIMIT)
    .and(sig.ltS(0));
}

/** What FPTAN pushes beside its result: one, or the NaN that the result is. */
function companion(x: Env, sig: Val, se: Val): { sig: Val; se: Val } {
  const isNan = x.c.let(exponentOf(se).eq(MAX_EXPONENT));
  return { sig: select(isNan, sig, TOP_BIT), se: select(isNan, se, i32(BIAS)) };
}

/** An instruction on an angle. `compute` gives significand, sign and exponent once or, where the instruction pushes a second result, twice,
 *  then flags. */
function onAngle(
  name: string,
  row: string,
  pushes: boolean,
  compute: (x: Env, sig: Val, se: Val) => { results: { sig: Val; se: Val }[]; flags: Val },
): Instruction {
  const unusual = helper(`x87${name}Instruction`, [], [], (x) => {
    const { c } = x;
    const indefinite = (flags: number): void => {
      const unmasked = x.call(x87Status, flags, STATUS.C2);
      c.if(unmasked.and(BEFORE_RESULT).eqz(), () => {
        writeStack(x, 0, INDEFINITE_SIG, INDEFINITE_SE);
        if (!pushes) return;
        moveTop(x, 7);
        writeStack(x, 0, INDEFINITE_SIG, INDEFINITE_SE);
      });
      x.done();
    };
    c.if(filled(x, 0).eqz(), () => indefinite(STACK_UNDERFLOW));
    const { sig, se } = readStack(x, 0);
    if (pushes) c.if(filled(x, 7), () => indefinite(STACK_OVERFLOW));
    c.if(beyond(sig, se), () => {
      x.call(x87Status, STATUS.C2, STATUS.C2);
      x.done();
    });
    const { results, flags } = compute(x, sig, se);
    const unmasked = x.call(x87Status, withDenormal(x, flags), STATUS.C2);
    c.if(unmasked.and(BEFORE_RESULT).eqz(), () => {
      writeStack(x, 0, results[0].sig, results[0].se);
      if (!pushes) return;
      moveTop(x, 7);
      writeStack(x, 0, results[1].sig, results[1].se);
    });
    x.done();
  });
  return {
    name,
    rows: [row],
    semantics: (x) =>
      onRegisters(
        x,
        (stack) => {
          const { sig, se } = stack.read(0);
          stack.unless(exponentOf(se).geU(ANGLE_LIMIT));
          if (pushes) stack.room();
          const { results, flags } = compute(x, sig, se);
          const raised = maskedFlags(x, stack, flags);
          stack.note();
          stack.report(raised, STATUS.C2);
          stack.write(0, results[0].sig, results[0].se);
          if (pushes) stack.push(results[1].sig, results[1].se);
        },
        () => x.invoke(unusual),
      ),
  };
}

function oneResult(cosine: number): (x: Env, sig: Val, se: Val) => { results: { sig: Val; se: Val }[]; flags: Val } {
  return (x, sig, se) => {
    const [value, valueSe, flags] = x.callMany(x87Sine, sig, se, cosine);
    return { results: [{ sig: value, se: valueSe }], flags };
  };
}

export const X87_TRANSCENDENTAL: InstructionGroup = [
  {
    name: "F2XM1",
    rows: ["D9 F0"],
    semantics: (x) =>
      onRegisters(
        x,
        (stack) => {
          const { sig, se } = stack.read(0);
          const result = quickly(x, stack, x87PowerPacked, sig, se);
          stack.note();
          stack.report(result.flags);
          stack.write(0, result.sig, result.se);
        },
        () => x.invoke(x87PowerInstruction),
      ),
  },
  onTwo("FYL2X", "D9 F1", x87TimesLogarithm),
  onTwo("FPATAN", "D9 F3", x87ArcTangent),
  onTwo("FYL2XP1", "D9 F9", x87TimesLogarithmPlus1),
  onAngle("FPTAN", "D9 F2", true, (x, sig, se) => {
    const [value, valueSe, flags] = x.callMany(x87Tangent, sig, se);
    return { results: [{ sig: value, se: valueSe }, companion(x, value, valueSe)], flags };
  }),
  onAngle("FSINCOS", "D9 FB", true, (x, sig, se) => {
    const [sine, sineSe, cosine, cosineSe, flags] = x.callMany(x87SineCosine, sig, se);
    return {
      results: [
        { sig: sine, se: sineSe },
        { sig: cosine, se: cosineSe },
      ],
      flags,
    };
  }),
  onAngle("FSIN", "D9 FE", false, oneResult(0)),
  onAngle("FCOS", "D9 FF", false, oneResult(1)),
];
