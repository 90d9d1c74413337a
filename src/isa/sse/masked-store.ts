// MASKMOVDQU, and the store that it shares with MASKMOVQ: bytes whose mask has its top bit set go to where rDI points (Intel SDM Vol. 2B
// MASKMOVDQU, MASKMOVQ).

import { laneOp, op, type Val } from "../../wasm/value.ts";
import { faultingHelper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { addressMask, indexRegister, segmentAddress } from "../segmentation.ts";
import type { Sem } from "../semantics.ts";
import { GPR } from "../state.ts";
import { FEATURE } from "./feature.ts";
import { useSse } from "./state.ts";

/** (linear, value, bits of the bytes to store): all are known to be writable before the first is written. */
const storeBytes = faultingHelper("storeBytes", ["i64", "v128", "i32"], [], (x, linear, value, bits) => {
  const { c } = x;
  const rest = c.local("i32");
  const eachByte = (body: (number: Val) => void): void => {
    c.set(rest, bits);
    c.block((done) => {
      c.loop((again) => {
        c.brIf(done, rest.eqz());
        body(c.let(rest.ctz()));
        c.set(rest, rest.and(rest.sub(1)));
        c.br(again);
      });
    });
  };
  eachByte((number) => x.probeWrite(8, linear.add(number.zx())));
  eachByte((number) => {
    const byte = laneOp("i8x16.extract_lane_u", [0], op("i8x16.swizzle", value, op("i8x16.splat", number)));
    x.store(8, linear.add(number.zx()), byte);
  });
  x.done();
});

export function storeMasked(x: Sem, value: Val, mask: Val, bytes: 8 | 16): void {
  const { c } = x;
  const bits = c.let(op("i8x16.bitmask", mask));
  const offset = indexRegister(x, GPR.RDI, addressMask(c.let(x.addressSize())));
  const linear = x.call(segmentAddress, x.segmentNumber(), offset, bytes, 1);
  x.invoke(storeBytes, linear, value, bits);
}

export const SSE_MASKED_STORE: InstructionGroup = [
  {
    name: "MASKMOVDQU",
    rows: ["66 0F F7 /r: Vx, Ux ; mem"],
    feature: FEATURE.SSE2,
    semantics: (x) => {
      useSse(x);
      storeMasked(x, x.read(0), x.read(1), 16);
    },
  } satisfies Instruction,
];
