// INT n, INT3, INTO, INT1 and IRET (SDM Vol. 2A; virtual-8086 rules Vol. 3B 20.2).

import type { Val } from "../../wasm/value.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { VECTOR } from "../state.ts";
import { deliverEvent } from "./deliver.ts";
import { EVENT } from "./events.ts";
import { iopl, isVirtual8086 } from "./modes.ts";
import { emitIret } from "./returns.ts";

function deliver(x: Sem, vector: Val | number, kind: number): void {
  x.invoke(deliverEvent, vector, kind, -1, x.nextRip());
  x.continueAtRip();
}

export const INTERRUPTS: InstructionGroup = [
  {
    name: "INT",
    rows: ["CD: Ib; end"],
    reads: "OSZAPC",
    semantics: (x) => {
      const vector = x.c.let(x.read(0));
      // Virtual-8086 mode below IOPL 3 traps to its monitor; INT3 and INTO do not (SDM Vol. 3B 20.2.7).
      if (!x.long) x.raiseIf(isVirtual8086(x).ne(0).and(iopl(x).ltU(3)), VECTOR.GP, 0);
      deliver(x, vector, EVENT.SOFTWARE);
    },
  },
  {
    name: "INT3",
    rows: ["CC; end"],
    reads: "OSZAPC",
    semantics: (x) => deliver(x, VECTOR.BP, EVENT.SOFTWARE_EXCEPTION),
  },
  { name: "INT1", rows: ["F1; end"], reads: "OSZAPC", semantics: (x) => deliver(x, VECTOR.DB, EVENT.ICEBP) },
  {
    name: "INTO",
    rows: ["CE; i64, end"],
    reads: "OSZAPC",
    semantics: (x) => {
      x.c.if(x.condition(0), () => deliver(x, VECTOR.OF, EVENT.SOFTWARE_EXCEPTION));
      x.endBlock();
    },
  },
  {
    name: "IRET",
    rows: ["CF; end, stack"],
    reads: "OSZAPC",
    writes: "OSZAPC",
    semantics: (x) => {
      emitIret(x, x.opsize as 16 | 32 | 64, x.long, x.nextRip());
      // It serialises, and what follows is looked up anew in any case.
      x.c.atomicFence();
      x.continueAtRip();
    },
  },
];
