// The part of a local APIC that orders interrupts: IRR, ISR, TMR and the priorities.
// SDM Vol. 3A 11.8.3 (interrupt, task and processor priority), 11.8.4 (acceptance), 11.8.5 (EOI), 11.6.2.4 (arbitration).

import type { Schema, Stateful } from "../state.ts";
import { addVector, hasVector, highestVector, newVectorSet, removeVector } from "./vector-set.ts";

export const INTERRUPT_REQUESTS_SCHEMA: Schema = {
  kind: "lapic-requests",
  version: 1,
  fields: { tpr: "u8", irr: "words", isr: "words", tmr: "words" },
  derived: ["trace"],
};

export class InterruptRequests implements Stateful {
  readonly schema = INTERRUPT_REQUESTS_SCHEMA;

  tpr = 0;
  readonly irr = newVectorSet();
  readonly isr = newVectorSet();
  /** Per vector, the trigger mode of its latest request: set if level. */
  readonly tmr = newVectorSet();
  private readonly trace: (what: string, vector: number) => void;

  constructor(trace: (what: string, vector: number) => void) {
    this.trace = trace;
  }

  reset(): void {
    this.tpr = 0;
    this.irr.fill(0);
    this.isr.fill(0);
    this.tmr.fill(0);
  }

  /** PPR (11.8.3.1): the higher class of the task's and that of what is in service. */
  processorPriority(): number {
    const inService = highestVector(this.isr);
    const servicePriority = inService < 0 ? 0 : inService & 0xf0;
    return (this.tpr & 0xf0) >= servicePriority ? this.tpr : servicePriority;
  }

  /** What lowest-priority arbitration compares: the APR as 11.6.2.4 computes it. */
  arbitrationPriority(): number {
    const requested = Math.max(0, highestVector(this.irr)) & 0xf0;
    const inService = Math.max(0, highestVector(this.isr)) & 0xf0;
    const task = this.tpr & 0xf0;
    return task >= requested && task > inService ? this.tpr : Math.max(task, inService, requested);
  }

  /** The highest request of a class above the processor priority's; -1 if none. */
  pending(): number {
    const requested = highestVector(this.irr);
    if (requested < 0) return -1;
    return requested >>> 4 > this.processorPriority() >>> 4 ? requested : -1;
  }

  /** True if the vector is requested or in service with the other trigger mode. */
  triggerDiffers(vector: number, level: boolean): boolean {
    if (hasVector(this.tmr, vector) === level) return false;
    return hasVector(this.irr, vector) || hasVector(this.isr, vector);
  }

  /** The TMR is right before the request can be seen. A vector that is requested already stays requested once (11.8.4). */
  request(vector: number, level: boolean): void {
    if (level) addVector(this.tmr, vector);
    else removeVector(this.tmr, vector);
    if (hasVector(this.irr, vector)) return;
    addVector(this.irr, vector);
    this.trace(level ? "IRR level" : "IRR edge", vector);
  }

  /** From IRR to ISR; false if it was not requested. */
  accept(vector: number): boolean {
    if (!hasVector(this.irr, vector)) return false;
    removeVector(this.irr, vector);
    addVector(this.isr, vector);
    this.trace("IRR -> ISR", vector);
    return true;
  }

  /** Ends the highest vector in service and gives it; -1 if there is none. */
  endOfInterrupt(): number {
    const vector = highestVector(this.isr);
    if (vector < 0) return -1;
    removeVector(this.isr, vector);
    this.trace("EOI", vector);
    return vector;
  }

  isLevel(vector: number): boolean {
    return hasVector(this.tmr, vector);
  }
}
