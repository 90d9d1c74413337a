// What all MMX instructions share: whether they may run, and their effect on the x87 registers that they alias (Intel SDM Vol. 1 9.5,
// Vol. 3A 12.1 to 12.3).

import { faultingHelper } from "../helper.ts";
import type { Sem } from "../semantics.ts";
import { CR0, CR0_BIT, FSW, FTW, VECTOR } from "../state.ts";
import { STATUS, waitX87 } from "../x87/state.ts";

const mmxNotReady = faultingHelper("mmxNotReady", [], [], (x) => {
  x.raiseIf(x.get(CR0).and(CR0_BIT.EM).ne(0), VECTOR.UD);
  x.raiseIf(x.get(CR0).and(CR0_BIT.TS).ne(0), VECTOR.NM);
  waitX87(x);
  x.done();
});

/** Raises #UD where CR0.EM = 1, #NM where CR0.TS = 1, #MF where an unmasked x87 exception waits. First in every MMX instruction. */
export function useMmx(x: Sem): void {
  const disabled = x.get(CR0).and(CR0_BIT.EM | CR0_BIT.TS);
  const pending = x.get(FSW).and(STATUS.ES);
  x.c.if(disabled.or(pending), () => x.invoke(mmxNotReady), undefined, "unlikely");
}

/** Any MMX instruction leaves TOP = 0 and all tags valid, after everything that can fault. */
export function enterMmx(x: Sem): void {
  x.put(FSW, x.get(FSW).and(~STATUS.TOP));
  x.put(FTW, 0xff);
}

/** EMMS leaves all tags empty. */
export function leaveMmx(x: Sem): void {
  x.put(FSW, x.get(FSW).and(~STATUS.TOP));
  x.put(FTW, 0);
}
