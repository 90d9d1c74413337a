// BOUND: a signed index against two limits in memory (SDM Vol. 2A BOUND); not in 64-bit mode, where its opcode is the EVEX prefix.

import type { Val } from "../../wasm/value.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Bits, Sem } from "../semantics.ts";
import { VECTOR } from "../state.ts";

function bound(x: Sem): void {
  const { c } = x;
  const bits = x.bits(0) as Bits;
  const bytes = bits / 8;
  const signed = (value: Val): Val => (bits === 16 ? value.extend(16) : value);
  const index = c.let(signed(x.read(0)));
  const linear = c.let(x.addressAt(1, 0n, 2 * bytes));
  const lower = signed(x.load(bits, linear));
  const upper = signed(x.load(bits, linear.add(bytes)));
  x.raiseIf(index.ltS(lower).or(index.gtS(upper)), VECTOR.BR);
}

export const BOUND: InstructionGroup = [{ name: "BOUND", rows: ["62 /r: Gv, Mv ; i64"], semantics: bound }];
