// RFLAGS from the form in which arithmetic flags are kept (src/isa/state.ts).

import { FCF, FLAG, FRES, FX, RFLAGS } from "../isa/state.ts";

/** RFLAGS of a vCPU's memory, or of a copy of its registers. */
export function flagImage(view: DataView): number {
  const result = view.getBigInt64(FRES.offset, true);
  const carries = view.getBigInt64(FX.offset, true);
  const carry = view.getUint32(FCF.offset, true);
  const cf = carry & 1;
  let parity = Number(BigInt.asUintN(8, result)) ^ ((carry >> 16) & 0xff);
  parity ^= parity >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return (
    view.getUint32(RFLAGS.offset, true) |
    (cf * FLAG.CF) |
    ((parity & 1) === 0 ? FLAG.PF : 0) |
    (Number(carries & 0x10n) & FLAG.AF) |
    (result === 0n ? FLAG.ZF : 0) |
    (Number(result < 0n) !== ((carry >> 8) & 1) ? FLAG.SF : 0) |
    (Number(carries < 0n) !== cf ? FLAG.OF : 0)
  );
}
