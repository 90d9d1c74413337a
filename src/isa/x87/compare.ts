// Comparison and classification (Intel SDM Vol. 1 8.3.6, 8.3.7; Vol. 2A FCOM, FCOMI, FTST, FXAM).

import { i32, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { FLAG } from "../state.ts";
import { denormalFlag } from "./arithmetic.ts";
import { KIND, signOf, x87Kind, x87Unpack } from "./format.ts";
import {
  CONDITION_CODES,
  empty,
  filled,
  popMany,
  readStack,
  report,
  STACK_UNDERFLOW,
  STATUS,
  x87Status,
} from "./state.ts";

/** Relations in the places of CF, PF, ZF as FCOMI sets them. */
export const RELATION = { GREATER: 0, LESS: FLAG.CF, EQUAL: FLAG.ZF, UNORDERED: FLAG.ZF | FLAG.PF | FLAG.CF } as const;

/** (aSig, aSe, bSig, bSe, quiet) -> (relation, flags). Quiet comparisons do not raise IE for quiet NaNs. */
export const x87Compare = helper(
  "x87Compare",
  ["i64", "i32", "i64", "i32", "i32"],
  ["i32", "i32"],
  (x, aSig, aSe, bSig, bSe, quiet) => {
    const { c } = x;
    const aKind = x.call(x87Kind, aSig, aSe);
    const bKind = x.call(x87Kind, bSig, bSe);
    c.if(
      aKind.geU(KIND.QNAN).or(bKind.geU(KIND.QNAN)),
      () => {
        const raises = aKind.gtU(KIND.QNAN).or(bKind.gtU(KIND.QNAN)).or(quiet.eqz());
        x.done(RELATION.UNORDERED, raises.mul(STATUS.IE));
      },
      undefined,
      "unlikely",
    );
    const flags = c.let(denormalFlag(aKind, bKind));
    c.if(aSig.or(bSig).eqz(), () => x.done(RELATION.EQUAL, flags));
    const aSign = c.let(signOf(aSe));
    c.if(signOf(aSe.xor(bSe)), () => x.done(select(aSign, i32(RELATION.LESS), RELATION.GREATER), flags));
    // Same sign: by magnitude. An infinity unpacks as larger than any number.
    const [ea, sa] = x.callMany(x87Unpack, aSig, aSe);
    const [eb, sb] = x.callMany(x87Unpack, bSig, bSe);
    c.if(ea.eq(eb).and(sa.eq(sb)), () => x.done(RELATION.EQUAL, flags));
    const smaller = ea.ltS(eb).or(ea.eq(eb).and(sa.ltU(sb)));
    x.done(select(smaller.xor(aSign), i32(RELATION.LESS), RELATION.GREATER), flags);
  },
);

/** Relation and flags of ST(0) and another operand, or the outcome of a stack underflow. */
function relation(x: Env, present: Val, other: () => { sig: Val; se: Val; flags: Val }, quiet: Val): [Val, Val] {
  const { c } = x;
  const relationOf = c.local("i32", RELATION.UNORDERED);
  const flags = c.local("i32", STACK_UNDERFLOW);
  c.if(
    present,
    () => {
      const a = readStack(x, 0);
      const b = other();
      const [found, raised] = x.callMany(x87Compare, a.sig, a.se, b.sig, b.se, quiet);
      c.set(relationOf, found);
      // A denormal operand in memory is seen only where the operands compare.
      c.set(flags, raised.or(select(found.eq(RELATION.UNORDERED), i32(0), b.flags)));
    },
    undefined,
    "likely",
  );
  return [relationOf, flags];
}

/** Sets C3, C2, C0 from a relation, unless an unmasked invalid operation stops the comparison; pops unless any exception is unmasked. */
function conclude(x: Env, relationOf: Val, flags: Val, pops: Val): void {
  const { c } = x;
  const codes = relationOf
    .and(FLAG.CF)
    .mul(STATUS.C0)
    .or(relationOf.bits(2, 1).mul(STATUS.C2))
    .or(relationOf.bits(6, 1).mul(STATUS.C3));
  const unmasked = report(x, flags);
  c.if(unmasked.and(STATUS.IE).eqz(), () => x.invoke(x87SetCodes, codes));
  c.if(unmasked.eqz(), () => popMany(x, pops));
  x.done();
}

/** Replaces all condition codes. */
export const x87SetCodes = helper("x87SetCodes", ["i32"], [], (x, codes) => {
  x.call(x87Status, codes, CONDITION_CODES);
  x.done();
});

/** (index, quiet, pops): FCOM, FUCOM and theirs with ST(index). */
export const x87CompareRegister = helper("x87CompareRegister", ["i32", "i32", "i32"], [], (x, index, quiet, pops) => {
  const present = filled(x, 0).and(filled(x, index));
  const [found, flags] = relation(x, present, () => ({ ...readStack(x, index), flags: i32(0) }), quiet);
  conclude(x, found, flags, pops);
});

/** (sig, se, flags, pops): FCOM with an operand from memory. */
export const x87CompareMemory = helper(
  "x87CompareMemory",
  ["i64", "i32", "i32", "i32"],
  [],
  (x, sig, se, flags, pops) => {
    const [found, raised] = relation(x, filled(x, 0), () => ({ sig, se, flags }), i32(0));
    conclude(x, found, raised, pops);
  },
);

/** (index, quiet, pops): FCOMI and theirs. */
export const x87CompareFlags = helper("x87CompareFlags", ["i32", "i32", "i32"], [], (x, index, quiet, pops) => {
  const present = filled(x, 0).and(filled(x, index));
  const [found, flags] = relation(x, present, () => ({ ...readStack(x, index), flags: i32(0) }), quiet);
  const unmasked = report(x, flags);
  x.c.if(unmasked.and(STATUS.IE).eqz(), () => x.setArithmeticFlags(found));
  x.c.if(unmasked.eqz(), () => popMany(x, pops));
  x.done();
});

const CLASS = { UNSUPPORTED: 0, NAN: STATUS.C0, NORMAL: STATUS.C2, INFINITY: STATUS.C2 | STATUS.C0 } as const;
const CLASS_ZERO = STATUS.C3;
const CLASS_EMPTY = STATUS.C3 | STATUS.C0;
const CLASS_DENORMAL = STATUS.C3 | STATUS.C2;

/** FXAM: C1 has the sign even of an empty register. */
export const x87Examine = helper("x87Examine", [], [], (x) => {
  const { c } = x;
  const { sig, se } = readStack(x, 0);
  const codes = c.local("i32", CLASS_EMPTY);
  c.if(empty(x, 0).eqz(), () => {
    const kind = x.call(x87Kind, sig, se);
    c.switch(
      kind,
      [
        [[KIND.ZERO], () => c.set(codes, CLASS_ZERO)],
        [[KIND.NORMAL], () => c.set(codes, CLASS.NORMAL)],
        [[KIND.DENORMAL], () => c.set(codes, CLASS_DENORMAL)],
        [[KIND.INFINITY], () => c.set(codes, CLASS.INFINITY)],
        [[KIND.UNSUPPORTED], () => c.set(codes, CLASS.UNSUPPORTED)],
      ],
      () => c.set(codes, CLASS.NAN),
    );
  });
  x.invoke(x87SetCodes, codes.or(signOf(se).mul(STATUS.C1)));
  x.done();
});
