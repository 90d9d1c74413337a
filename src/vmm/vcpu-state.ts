// What the host does with a vCPU, apart from what the vCPU itself does (its activity state). After bhyve's VCPU_IDLE and so on:
//
//   idle      nobody works with it; its state may be read and changed from outside
//   frozen    the run loop has it: decides, injects
//   running   the engine executes it
//   sleeping  it waits, halted, for an event; otherwise as idle
//
// The legal transitions stand here and nowhere else.

export const VCPU_STATE = { IDLE: 0, FROZEN: 1, RUNNING: 2, SLEEPING: 3 } as const;
export type VcpuState = (typeof VCPU_STATE)[keyof typeof VCPU_STATE];

const NAMES = ["idle", "frozen", "running", "sleeping"] as const;
/** By state, a bit for each that may come next. */
const LEGAL = [
  1 << VCPU_STATE.FROZEN,
  (1 << VCPU_STATE.RUNNING) | (1 << VCPU_STATE.SLEEPING) | (1 << VCPU_STATE.IDLE),
  1 << VCPU_STATE.FROZEN,
  1 << VCPU_STATE.FROZEN,
] as const;

export class VcpuStateMachine {
  private present: VcpuState = VCPU_STATE.IDLE;

  get state(): VcpuState {
    return this.present;
  }

  /** An illegal transition is a fault of the core, not of the guest. */
  enter(next: VcpuState): void {
    if ((LEGAL[this.present] & (1 << next)) === 0)
      throw new Error(`a vCPU cannot go from ${NAMES[this.present]} to ${NAMES[next]}`);
    this.present = next;
  }
}
