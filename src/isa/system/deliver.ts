// Exceptions and interrupts: delivery by mode, and what becomes of an exception during delivery (SDM Vol. 3A 6.12 to 6.15).

import { i32, select, type Val } from "../../wasm/value.ts";
import { ANOMALY } from "../anomaly.ts";
import { anomaly, faultingHelper, helper } from "../helper.ts";
import { ACTIVITY, NMI_BLOCKED, PENDING_ERROR, PENDING_VECTOR, RIP, VECTOR } from "../state.ts";
import { deliverLong } from "./deliver-long.ts";
import { deliverProtected } from "./deliver-protected.ts";
import { deliverReal } from "./deliver-real.ts";
import { EVENT } from "./events.ts";
import { isLongMode, isProtected } from "./modes.ts";

/** Activity state of a processor after a triple fault. */
const SHUTDOWN = 2;

/** Vector, kind (EVENT), error code or -1, RIP to return to. On success the RIP field holds where to go on. */
export const deliverEvent = faultingHelper(
  "deliverEvent",
  ["i32", "i32", "i32", "i64"],
  [],
  (x, vector, kind, error, rip) => {
    const { c } = x;
    c.if(
      isLongMode(x),
      () => x.invoke(deliverLong, vector, kind, error, rip),
      () => {
        c.if(
          isProtected(x),
          () => x.invoke(deliverProtected, vector, kind, error, rip),
          () => x.invoke(deliverReal, vector, kind, rip),
        );
      },
      "likely",
    );
    x.done();
  },
);

/** Vectors as bit sets for the classes of SDM Vol. 3A table 6-5; those in neither are benign. */
const CONTRIBUTORY = (1 << VECTOR.DE) | (1 << VECTOR.TS) | (1 << VECTOR.NP) | (1 << VECTOR.SS) | (1 << VECTOR.GP);
const PAGE_FAULT = 1 << VECTOR.PF;

function inClass(vector: Val, classes: number): Val {
  return vector.ltU(32).and(i32(classes).shrU(vector));
}

/** Delivers an event, and in its place what its delivery raises: 0 = delivered, 1 = shutdown after a triple fault. */
const deliverOrCombine = helper(
  "deliverOrCombine",
  ["i32", "i32", "i32"],
  ["i32"],
  (x, first, firstKind, firstError) => {
    const { c } = x;
    const vector = c.local("i32", first);
    const kind = c.local("i32", firstKind);
    const error = c.local("i32", firstError);
    // Ends after a few rounds: delivery raises contributory exceptions and page faults only, so that each round either delivers or moves on
    // from benign to contributory to page fault to double fault to shutdown.
    c.loop((again) => {
      c.if(x.attempt(deliverEvent, vector, kind, error, x.get(RIP)).eqz(), () => x.done(0), undefined, "likely");
      const second = c.let(x.get(PENDING_VECTOR));
      const secondError = c.let(x.get(PENDING_ERROR));
      x.put(PENDING_VECTOR, -1);
      const exception = c.let(kind.eq(EVENT.EXCEPTION));
      const severe = c.let(inClass(second, CONTRIBUTORY | PAGE_FAULT));
      c.if(exception.and(vector.eq(VECTOR.DF)).and(severe), () => {
        x.put(ACTIVITY, SHUTDOWN);
        x.invoke(anomaly, ANOMALY.TRIPLE_FAULT, second);
        x.done(1);
      });
      const double = c.let(
        exception.and(
          inClass(vector, CONTRIBUTORY).and(inClass(second, CONTRIBUTORY)).or(inClass(vector, PAGE_FAULT).and(severe)),
        ),
      );
      c.set(kind, EVENT.EXCEPTION);
      c.set(vector, select(double, i32(VECTOR.DF), second));
      c.set(error, select(double, i32(0), secondError));
      c.br(again);
    });
    x.done(1);
  },
);

/** Delivers the exception in the PENDING fields (the RIP field is where it returns to): 0, or 1 for shutdown. */
export const deliverPending = helper("deliverPending", [], ["i32"], (x) => {
  const { c } = x;
  const vector = c.let(x.get(PENDING_VECTOR));
  const error = c.let(x.get(PENDING_ERROR));
  x.put(PENDING_VECTOR, -1);
  x.done(x.call(deliverOrCombine, vector, EVENT.EXCEPTION, error));
});

/** Injects an external interrupt or NMI (kind EVENT.EXTERNAL or EVENT.NMI) at an instruction boundary: 0, or 1 for shutdown. */
export const deliverInterrupt = helper("deliverInterrupt", ["i32", "i32"], ["i32"], (x, vector, kind) => {
  x.put(ACTIVITY, 0);
  // From now on, so that the handler of what the delivery raises runs with NMIs blocked too, until its IRET (SDM Vol. 3A 6.7.1; Vol. 3C, "Resuming Guest Software After Handling an Exception":
  // who repeats the delivery of an NMI that faulted must take the blocking back).
  x.c.if(kind.eq(EVENT.NMI), () => x.put(NMI_BLOCKED, 1), undefined, "unlikely");
  x.done(x.call(deliverOrCombine, vector, kind, -1));
});
