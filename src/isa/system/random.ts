// RDRAND and RDSEED (SDM Vol. 1 7.3.17; Vol. 2B). The host's source never runs dry, so that CF is always set.

import { i32 } from "../../wasm/value.ts";
import { random32 } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { FLAG } from "../state.ts";

function random(name: string, reg: number, feature: string): Instruction {
  return {
    name,
    // F2 and F3 make other instructions of it, or none.
    rows: [`NP 0F C7 /${reg}: Rv`, `66 0F C7 /${reg}: Rv`],
    feature,
    writes: "OSZAPC",
    semantics: (x) => {
      const low = x.call(random32);
      if (x.bits(0) === 64) x.write(0, low.zx().or(x.call(random32).zx().shl(32)));
      else x.write(0, x.bits(0) === 16 ? low.and(0xffff) : low);
      x.setArithmeticFlags(i32(FLAG.CF));
    },
  };
}

export const RANDOM: InstructionGroup = [random("RDRAND", 6, "rdrand"), random("RDSEED", 7, "rdseed")];
