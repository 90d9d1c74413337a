// The keyboard controller with nothing plugged in: IBM PC/AT Technical Reference, "Keyboard Controller"; IBM PS/2 Hardware Interface
// Technical Reference, "Keyboard and Auxiliary Device Controller". It has no port for an auxiliary device.

import type { InterruptPin, IoSpace } from "../vmm/bus.ts";
import type { Schema, Stateful } from "../vmm/state.ts";

export interface I8042Options {
  readonly io: IoSpace;
  /** IRQ 1. */
  readonly interrupt: InterruptPin;
  /** The controller's share in the A20 gate, which is open where any source opens it. */
  onA20(open: boolean): void;
  /** The processors are to take an INIT. */
  onInit(): void;
}

const DATA_PORT = 0x60;
const COMMAND_PORT = 0x64;

const STATUS = { OUTPUT_FULL: 1, SYSTEM: 4, COMMAND: 8, INHIBIT_OFF: 0x10, TIMEOUT: 0x40 } as const;
/** Byte 0 of the controller's RAM. */
const CONTROL = {
  KEYBOARD_INTERRUPT: 1,
  SYSTEM: 4,
  KEYBOARD_DISABLED: 0x10,
  AUX_DISABLED: 0x20,
  TRANSLATE: 0x40,
} as const;
const OUTPUT_PORT = { RESET: 1, A20: 2, OUTPUT_FULL: 0x10 } as const;
/** Bit 7: the keyboard is not locked; bit 4: 256 KB of board memory or more, as every machine since has it. */
const INPUT_PORT = 0x90;

const COMMAND = {
  READ_RAM: 0x20,
  WRITE_RAM: 0x60,
  DISABLE_AUX: 0xa7,
  ENABLE_AUX: 0xa8,
  TEST_AUX: 0xa9,
  SELF_TEST: 0xaa,
  TEST_KEYBOARD: 0xab,
  DISABLE_KEYBOARD: 0xad,
  ENABLE_KEYBOARD: 0xae,
  READ_INPUT_PORT: 0xc0,
  READ_OUTPUT_PORT: 0xd0,
  WRITE_OUTPUT_PORT: 0xd1,
  WRITE_KEYBOARD_BUFFER: 0xd2,
  WRITE_AUX_BUFFER: 0xd3,
  WRITE_AUX: 0xd4,
  PULSE: 0xf0,
} as const;
const RAM_BYTES = 32;
const SELF_TEST_PASSED = 0x55;
const INTERFACE_TEST_PASSED = 0x00;
/** The auxiliary clock line is stuck low: drivers take it for "no such port". */
const INTERFACE_TEST_CLOCK_LOW = 0x01;
/** "Resend", which the controller gives with the timeout bit where a device does not answer. */
const NO_ANSWER = 0xfe;

const SCHEMA: Schema = {
  kind: "i8042",
  version: 1,
  fields: { status: "u8", output: "u8", outputPort: "u8", ram: "bytes", parameterOf: "u8" },
  derived: ["interrupt"],
};

export class I8042 implements Stateful {
  readonly schema = SCHEMA;
  status: number = STATUS.INHIBIT_OFF;
  output = 0;
  outputPort: number = OUTPUT_PORT.RESET | OUTPUT_PORT.A20;
  ram = new Uint8Array(RAM_BYTES);
  /** The command that the next data byte belongs to, 0 for none. */
  parameterOf = 0;
  private readonly interrupt: InterruptPin;
  private readonly onA20: (open: boolean) => void;
  private readonly onInit: () => void;

  constructor(options: I8042Options) {
    this.interrupt = options.interrupt;
    this.onA20 = (open) => options.onA20(open);
    this.onInit = () => options.onInit();
    this.ram[0] = CONTROL.KEYBOARD_DISABLED | CONTROL.AUX_DISABLED;
    options.io.mapPorts("i8042", DATA_PORT, 1, {
      readPort: () => this.readData(),
      writePort: (_port, _size, value) => this.writeData(value & 0xff),
    });
    options.io.mapPorts("i8042", COMMAND_PORT, 1, {
      readPort: () => this.status,
      writePort: (_port, _size, value) => this.writeCommand(value & 0xff),
    });
  }

  reset(): void {
    this.status = STATUS.INHIBIT_OFF;
    this.output = 0;
    this.outputPort = OUTPUT_PORT.RESET | OUTPUT_PORT.A20;
    this.ram.fill(0);
    this.ram[0] = CONTROL.KEYBOARD_DISABLED | CONTROL.AUX_DISABLED;
    this.parameterOf = 0;
    this.onA20(true);
    this.updateInterrupt();
  }

  afterRestore(): void {
    this.onA20((this.outputPort & OUTPUT_PORT.A20) !== 0);
  }

  private readData(): number {
    this.status &= ~(STATUS.OUTPUT_FULL | STATUS.TIMEOUT);
    this.updateInterrupt();
    return this.output;
  }

  private respond(value: number, timeout = false): void {
    this.output = value;
    this.status |= STATUS.OUTPUT_FULL | (timeout ? STATUS.TIMEOUT : 0);
    this.updateInterrupt();
  }

  private writeCommand(command: number): void {
    this.status |= STATUS.COMMAND;
    this.parameterOf = 0;
    if (command >= COMMAND.READ_RAM && command < COMMAND.READ_RAM + RAM_BYTES) {
      this.respond(this.ram[command - COMMAND.READ_RAM]);
      return;
    }
    if (command >= COMMAND.WRITE_RAM && command < COMMAND.WRITE_RAM + RAM_BYTES) {
      this.parameterOf = command;
      return;
    }
    // Bits 3:0 of the command that are zero pulse those lines of the output port low; line 0 is the processor's reset.
    if (command >= COMMAND.PULSE) {
      if ((command & OUTPUT_PORT.RESET) === 0) this.onInit();
      return;
    }
    switch (command) {
      case COMMAND.DISABLE_AUX:
        this.ram[0] |= CONTROL.AUX_DISABLED;
        break;
      case COMMAND.ENABLE_AUX:
        // There is no such port to enable; the bit stays, by which drivers see it.
        break;
      case COMMAND.TEST_AUX:
        this.respond(INTERFACE_TEST_CLOCK_LOW);
        break;
      case COMMAND.SELF_TEST:
        this.ram[0] = CONTROL.SYSTEM | CONTROL.KEYBOARD_DISABLED | CONTROL.AUX_DISABLED;
        this.status |= STATUS.SYSTEM;
        this.respond(SELF_TEST_PASSED);
        break;
      case COMMAND.TEST_KEYBOARD:
        this.respond(INTERFACE_TEST_PASSED);
        break;
      case COMMAND.DISABLE_KEYBOARD:
        this.ram[0] |= CONTROL.KEYBOARD_DISABLED;
        break;
      case COMMAND.ENABLE_KEYBOARD:
        this.ram[0] &= ~CONTROL.KEYBOARD_DISABLED;
        break;
      case COMMAND.READ_INPUT_PORT:
        this.respond(INPUT_PORT);
        break;
      case COMMAND.READ_OUTPUT_PORT:
        this.respond(this.outputPort | ((this.status & STATUS.OUTPUT_FULL) !== 0 ? OUTPUT_PORT.OUTPUT_FULL : 0));
        break;
      case COMMAND.WRITE_OUTPUT_PORT:
      case COMMAND.WRITE_KEYBOARD_BUFFER:
      case COMMAND.WRITE_AUX_BUFFER:
      case COMMAND.WRITE_AUX:
        this.parameterOf = command;
        break;
      default:
        break;
    }
  }

  private writeData(value: number): void {
    const command = this.parameterOf;
    this.status &= ~STATUS.COMMAND;
    this.parameterOf = 0;
    if (command >= COMMAND.WRITE_RAM && command < COMMAND.WRITE_RAM + RAM_BYTES) {
      this.writeRam(command - COMMAND.WRITE_RAM, value);
      return;
    }
    switch (command) {
      case COMMAND.WRITE_OUTPUT_PORT:
        this.writeOutputPort(value);
        break;
      case COMMAND.WRITE_KEYBOARD_BUFFER:
      // Without an auxiliary port its buffer is the keyboard's: the byte comes back without the mark of an auxiliary one.
      case COMMAND.WRITE_AUX_BUFFER:
        this.respond(value);
        break;
      case COMMAND.WRITE_AUX:
        this.respond(NO_ANSWER, true);
        break;
      default:
        // For the keyboard, which is not there. Sending to it enables its interface.
        this.ram[0] &= ~CONTROL.KEYBOARD_DISABLED;
        this.respond(NO_ANSWER, true);
    }
  }

  private writeRam(index: number, value: number): void {
    this.ram[index] = index === 0 ? value | CONTROL.AUX_DISABLED : value;
    if (index !== 0) return;
    this.status = (this.status & ~STATUS.SYSTEM) | (value & CONTROL.SYSTEM);
    this.updateInterrupt();
  }

  private writeOutputPort(value: number): void {
    const changed = value ^ this.outputPort;
    this.outputPort = value;
    if ((changed & OUTPUT_PORT.A20) !== 0) this.onA20((value & OUTPUT_PORT.A20) !== 0);
    if ((value & OUTPUT_PORT.RESET) === 0) {
      this.outputPort |= OUTPUT_PORT.RESET;
      this.onInit();
    }
  }

  private updateInterrupt(): void {
    this.interrupt.set((this.status & STATUS.OUTPUT_FULL) !== 0 && (this.ram[0] & CONTROL.KEYBOARD_INTERRUPT) !== 0);
  }
}
