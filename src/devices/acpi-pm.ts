// ACPI fixed hardware: PM1a event and control blocks, one general-purpose event block, the SMI command port. ACPI 6.4, 4.8.
// The PM timer between them is a device of its own, which also has TMR_STS and TMR_EN's effect; here they are only shown.

import type { AccessSize, AnomalyLog, InterruptPin, IoSpace } from "../vmm/bus.ts";
import type { Schema, Stateful } from "../vmm/state.ts";

/** What the PM timer offers for its event (4.8.3.1). */
export interface CarryTimer {
  readonly carry: boolean;
  clearCarry(): void;
  setCarryInterrupt(enabled: boolean): void;
}

export interface AcpiPmOptions {
  readonly io: IoSpace;
  readonly log: AnomalyLog;
  /** PM1a_EVT at 0, PM1a_CNT at 4, GPE0 at 0xc from here; 8 to 0xb are left to the timer. */
  readonly base: number;
  readonly sci: InterruptPin;
  /** Its carry callback is to be `timerCarry`. */
  readonly timer?: CarryTimer;
  /** The guest asked for S5. */
  onPowerOff(): void;
  /** What PM1_EN holds. Called at each change. */
  onEnable?(value: number): void;
  /** SLP_TYP of S5 as the DSDT tells it; 5 if absent. */
  readonly s5SleepType?: number;
  /** Absent: the hardware is always in ACPI mode (4.8.1.2.1: SMI_CMD of zero in the FADT). */
  readonly smiCommand?: { readonly port: number; readonly enable: number; readonly disable: number };
}

/** Table 4.15 and 4.16; a status bit and its enable have the same place. */
export const PM1 = { TMR: 1 << 0, GBL: 1 << 5, PWRBTN: 1 << 8, SLPBTN: 1 << 9, RTC: 1 << 10, WAK: 1 << 15 } as const;
/** Table 4.17. GBL_RLS and SLP_EN read as zero. */
const CNT = { SCI_EN: 1 << 0, BM_RLD: 1 << 1, SLP_TYP_SHIFT: 10, SLP_TYP: 7 << 10, SLP_EN: 1 << 13 } as const;

/** What PM1_EN holds of what is written to it. */
export const PM1_EVENTS = PM1.TMR | PM1.GBL | PM1.PWRBTN | PM1.SLPBTN | PM1.RTC;
const BLOCK = { pm1: 0, pm1Length: 8, gpe0: 0xc, gpe0Length: 4 } as const;
/** Offsets of 16-bit registers within the two blocks. */
const REGISTER = { PM1_STS: 0, PM1_EN: 2, PM1_CNT: 4, GPE0_STS: 0xc, GPE0_EN: 0xe } as const;
/** Where they are from `base` on: PM1_STS, PM1_EN, all bytes of the general-purpose event block. */
export const PM1_STATUS = REGISTER.PM1_STS;
export const PM1_ENABLE = REGISTER.PM1_EN;
export const GPE0_PORTS = Array.from({ length: BLOCK.gpe0Length }, (_, n) => BLOCK.gpe0 + n);
const S5_SLEEP_TYPE = 5;

const SCHEMA: Schema = {
  kind: "acpi-pm",
  version: 1,
  fields: {
    pm1Status: "u16",
    pm1Enable: "u16",
    pm1Control: "u16",
    gpe0Status: "u16",
    gpe0Enable: "u16",
    apmStatus: "u8",
  },
  derived: ["options", "alwaysEnabled"],
};

export class AcpiPm implements Stateful {
  readonly schema = SCHEMA;
  pm1Status = 0;
  pm1Enable = 0;
  pm1Control = 0;
  gpe0Status = 0;
  gpe0Enable = 0;
  /** The byte behind the SMI command port, which the guest may use as it likes. */
  apmStatus = 0;
  private readonly options: AcpiPmOptions;
  private readonly alwaysEnabled: boolean;

  constructor(options: AcpiPmOptions) {
    this.options = options;
    this.alwaysEnabled = options.smiCommand === undefined;
    if (this.alwaysEnabled) this.pm1Control = CNT.SCI_EN;
    const { io, base, smiCommand } = options;
    const handler = {
      readPort: (port: number, size: AccessSize) => this.read(port - base, size),
      writePort: (port: number, size: AccessSize, value: number) => this.write(port - base, size, value),
    };
    io.mapPorts("acpi-pm1", base + BLOCK.pm1, BLOCK.pm1Length, handler);
    io.mapPorts("acpi-gpe0", base + BLOCK.gpe0, BLOCK.gpe0Length, handler);
    if (smiCommand === undefined) return;
    io.mapPorts("acpi-smi-command", smiCommand.port, 2, {
      readPort: (port) => (port === smiCommand.port ? 0 : this.apmStatus),
      writePort: (port, _size, value) => {
        if (port !== smiCommand.port) this.apmStatus = value & 0xff;
        else if ((value & 0xff) === smiCommand.enable) this.pm1Control |= CNT.SCI_EN;
        else if ((value & 0xff) === smiCommand.disable) this.pm1Control &= ~CNT.SCI_EN;
        else options.log.anomaly("acpi-pm", "an unknown SMI command");
        this.updateSci();
      },
    });
  }

  reset(): void {
    this.pm1Status = 0;
    this.pm1Enable = 0;
    this.pm1Control = this.alwaysEnabled ? CNT.SCI_EN : 0;
    this.gpe0Status = 0;
    this.gpe0Enable = 0;
    this.apmStatus = 0;
    this.updateSci();
  }

  afterRestore(): void {
    this.tellEnable();
  }

  private tellEnable(): void {
    this.options.onEnable?.(this.pm1Enable);
  }

  /** The user pressed the power button (4.8.2.2.1.1). Without a guest that listens nothing happens. */
  pressPowerButton(): void {
    this.pm1Status |= PM1.PWRBTN;
    this.updateSci();
  }

  /** The PM timer's carry came while TMR_EN was set (4.8.2.1). */
  timerCarry(): void {
    this.updateSci();
  }

  /** A general-purpose event, 0 to 15. */
  raiseEvent(index: number): void {
    this.gpe0Status |= 1 << index;
    this.updateSci();
  }

  /** PM1_STS with the timer's bit. */
  private status(): number {
    return this.pm1Status | (this.options.timer?.carry ? PM1.TMR : 0);
  }

  private register(offset: number): number {
    switch (offset) {
      case REGISTER.PM1_STS:
        return this.status();
      case REGISTER.PM1_EN:
        return this.pm1Enable;
      case REGISTER.PM1_CNT:
        return this.pm1Control;
      case REGISTER.GPE0_STS:
        return this.gpe0Status;
      case REGISTER.GPE0_EN:
        return this.gpe0Enable;
      default:
        return 0;
    }
  }

  private read(offset: number, size: AccessSize): number {
    let value = 0;
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      value |= ((this.register(at & ~1) >>> (8 * (at & 1))) & 0xff) << (8 * i);
    }
    return value >>> 0;
  }

  /** By whole registers: bytes that an access does not cover write as what the register holds, or as zero where ones clear. */
  private write(offset: number, size: AccessSize, value: number): void {
    for (let at = offset & ~1; at < offset + size; at += 2) {
      const clearsByOne = at === REGISTER.PM1_STS || at === REGISTER.GPE0_STS;
      let word = clearsByOne ? 0 : this.register(at);
      for (let byte = 0; byte < 2; byte++) {
        const from = at + byte - offset;
        if (from < 0 || from >= size) continue;
        word = (word & ~(0xff << (8 * byte))) | (((value >>> (8 * from)) & 0xff) << (8 * byte));
      }
      this.writeRegister(at, word);
    }
    this.updateSci();
  }

  private writeRegister(offset: number, value: number): void {
    switch (offset) {
      case REGISTER.PM1_STS:
        this.pm1Status &= ~value;
        if ((value & PM1.TMR) !== 0) this.options.timer?.clearCarry();
        break;
      case REGISTER.PM1_EN:
        this.pm1Enable = value & PM1_EVENTS;
        this.options.timer?.setCarryInterrupt((value & PM1.TMR) !== 0);
        break;
      case REGISTER.PM1_CNT:
        this.writeControl(value);
        break;
      case REGISTER.GPE0_STS:
        this.gpe0Status &= ~value;
        break;
      case REGISTER.GPE0_EN:
        this.gpe0Enable = value;
        break;
      default:
        break;
    }
  }

  /** SCI_EN belongs to the firmware (4.8.3.2.1); setting SLP_EN enters the state of SLP_TYP. */
  private writeControl(value: number): void {
    this.pm1Control = (this.pm1Control & CNT.SCI_EN) | (value & (CNT.BM_RLD | CNT.SLP_TYP));
    if ((value & CNT.SLP_EN) === 0) return;
    const type = (value & CNT.SLP_TYP) >> CNT.SLP_TYP_SHIFT;
    if (type === (this.options.s5SleepType ?? S5_SLEEP_TYPE)) this.options.onPowerOff();
    else this.options.log.anomaly("acpi-pm", "a sleep state that the tables do not offer");
  }

  /** 4.8.2.2: the interrupt is level-triggered and shared by all events. */
  private updateSci(): void {
    this.tellEnable();
    const fixed = this.status() & this.pm1Enable;
    const general = this.gpe0Status & this.gpe0Enable;
    this.options.sci.set((this.pm1Control & CNT.SCI_EN) !== 0 && (fixed | general) !== 0);
  }
}
