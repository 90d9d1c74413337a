// A WebAssembly module, from declarations to bytes (WebAssembly Core Specification, 5.5). Knows nothing of x86.

import { Code } from "./code.ts";
import { Memory, type MemoryLimits } from "./memory.ts";
import { VAL_TYPE_CODE, type ValType } from "./ops.ts";
import { constantOf } from "./value.ts";
import { ByteWriter } from "./writer.ts";

export interface FuncType {
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
}

export interface FuncRef {
  readonly index: number;
  readonly name: string;
  readonly type: FuncType;
}

export interface GlobalRef {
  readonly index: number;
  readonly type: ValType;
}

export interface TableRef {
  readonly index: number;
}

export interface TagRef {
  readonly index: number;
  readonly name: string;
  readonly type: FuncType;
}

interface Import {
  readonly module: string;
  readonly name: string;
  readonly write: (out: ByteWriter) => void;
}

const SECTION = {
  type: 1,
  import: 2,
  func: 3,
  table: 4,
  memory: 5,
  tag: 13,
  global: 6,
  export: 7,
  elem: 9,
  dataCount: 12,
  code: 10,
  data: 11,
};
const KIND = { func: 0, table: 1, memory: 2, global: 3, tag: 4 } as const;

/** Function types are written as `(i32,i64)->i32` in error messages. */
function typeKey(type: FuncType): string {
  return `(${type.params.join(",")})->${type.results.join(",")}`;
}

export class ModuleBuilder {
  private readonly types: FuncType[] = [];
  private readonly typeIndexes = new Map<string, number>();
  private readonly imports: Import[] = [];
  private readonly funcs: FuncRef[] = [];
  private importedFuncs = 0;
  private readonly bodies = new Map<number, Code>();
  private readonly memories: { limits: MemoryLimits; imported: boolean }[] = [];
  private readonly tables: { min: number; max?: number; imported: boolean }[] = [];
  private readonly globals: { type: ValType; mutable: boolean; initial: number | bigint; imported: boolean }[] = [];
  private readonly tags: { type: FuncType; imported: boolean }[] = [];
  private readonly exports: { name: string; kind: number; index: number }[] = [];
  private readonly elements: { table: number; offset: number; funcs: readonly FuncRef[] }[] = [];
  private readonly custom: { name: string; bytes: Uint8Array }[] = [];
  private readonly segments: { memory: Memory; offset: number; bytes: Uint8Array }[] = [];

  typeIndex(type: FuncType): number {
    const key = typeKey(type);
    let index = this.typeIndexes.get(key);
    if (index === undefined) {
      index = this.types.length;
      this.types.push(type);
      this.typeIndexes.set(key, index);
    }
    return index;
  }

  // Imports come before what the module defines itself, per kind.

  importFunc(module: string, name: string, params: readonly ValType[], results: readonly ValType[]): FuncRef {
    if (this.funcs.length !== this.importedFuncs)
      throw new Error(`import ${name} comes after a function of the module`);
    const type = { params, results };
    const typeIndex = this.typeIndex(type);
    this.imports.push({
      module,
      name,
      write: (out) => {
        out.u8(KIND.func);
        out.u32(typeIndex);
      },
    });
    this.importedFuncs++;
    const func = { index: this.funcs.length, name, type };
    this.funcs.push(func);
    return func;
  }

  importMemory(module: string, name: string, limits: MemoryLimits): Memory {
    this.imports.push({
      module,
      name,
      write: (out) => {
        out.u8(KIND.memory);
        writeLimits(out, limits);
      },
    });
    this.memories.push({ limits, imported: true });
    return new Memory(this.memories.length - 1, limits);
  }

  importTable(module: string, name: string, min: number, max?: number): TableRef {
    this.imports.push({
      module,
      name,
      write: (out) => {
        out.u8(KIND.table);
        out.u8(VAL_TYPE_CODE.funcref);
        writeLimits(out, { min, max });
      },
    });
    this.tables.push({ min, max, imported: true });
    return { index: this.tables.length - 1 };
  }

  importGlobal(module: string, name: string, type: ValType, mutable: boolean): GlobalRef {
    this.imports.push({
      module,
      name,
      write: (out) => {
        out.u8(KIND.global);
        out.u8(VAL_TYPE_CODE[type]);
        out.u8(mutable ? 1 : 0);
      },
    });
    this.globals.push({ type, mutable, initial: 0, imported: true });
    return { index: this.globals.length - 1, type };
  }

  importTag(module: string, name: string, params: readonly ValType[]): TagRef {
    const type = { params, results: [] };
    const typeIndex = this.typeIndex(type);
    this.imports.push({
      module,
      name,
      write: (out) => {
        out.u8(KIND.tag);
        out.u8(0);
        out.u32(typeIndex);
      },
    });
    this.tags.push({ type, imported: true });
    return { index: this.tags.length - 1, name, type };
  }

  // Definitions

  memory(limits: MemoryLimits): Memory {
    this.memories.push({ limits, imported: false });
    return new Memory(this.memories.length - 1, limits);
  }

  table(min: number, max?: number): TableRef {
    this.tables.push({ min, max, imported: false });
    return { index: this.tables.length - 1 };
  }

  global(type: ValType, initial: number | bigint): GlobalRef {
    this.globals.push({ type, mutable: true, initial, imported: false });
    return { index: this.globals.length - 1, type };
  }

  tag(name: string, params: readonly ValType[]): TagRef {
    const type = { params, results: [] };
    this.typeIndex(type);
    this.tags.push({ type, imported: false });
    return { index: this.tags.length - 1, name, type };
  }

  /** Announces a function, so that others can call it before its body is written. */
  declare(name: string, params: readonly ValType[], results: readonly ValType[]): FuncRef {
    const type = { params, results };
    this.typeIndex(type);
    const func = { index: this.funcs.length, name, type };
    this.funcs.push(func);
    return func;
  }

  /** Writes the body of an announced function. Values returned by `body` become the results at its end. */
  define(func: FuncRef, body: (code: Code) => void): void {
    if (this.bodies.has(func.index) || func.index < this.importedFuncs)
      throw new Error(`function ${func.name} is defined twice`);
    const code = new Code(this, func.type);
    body(code);
    this.bodies.set(func.index, code);
  }

  func(name: string, params: readonly ValType[], results: readonly ValType[], body: (code: Code) => void): FuncRef {
    const func = this.declare(name, params, results);
    this.define(func, body);
    return func;
  }

  /** Takes in a function whose code has been written already; imports may still be added while it is. */
  adopt(name: string, code: Code): FuncRef {
    const func = this.declare(name, code.type.params, code.type.results);
    this.bodies.set(func.index, code);
    return func;
  }

  exportFunc(name: string, func: FuncRef): void {
    this.exports.push({ name, kind: KIND.func, index: func.index });
  }

  exportMemory(name: string, memory: Memory): void {
    this.exports.push({ name, kind: KIND.memory, index: memory.index });
  }

  exportTable(name: string, table: TableRef): void {
    this.exports.push({ name, kind: KIND.table, index: table.index });
  }

  elementSegment(table: TableRef, offset: number, funcs: readonly FuncRef[]): void {
    this.elements.push({ table: table.index, offset, funcs });
  }

  customSection(name: string, bytes: Uint8Array): void {
    this.custom.push({ name, bytes });
  }

  data(memory: Memory, offset: number, bytes: Uint8Array): void {
    this.segments.push({ memory, offset, bytes });
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const out = new ByteWriter();
    out.raw(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]));
    const section = (id: number, count: number, body: (section: ByteWriter) => void): void => {
      if (count === 0) return;
      const content = new ByteWriter();
      content.u32(count);
      body(content);
      out.u8(id);
      out.u32(content.length);
      out.raw(content.view());
    };
    const code = new ByteWriter();
    const hinted: { index: number; hints: { at: number; likely: boolean }[] }[] = [];
    const own = this.funcs.slice(this.importedFuncs);
    for (const func of own) {
      const body = this.bodies.get(func.index);
      if (body === undefined) throw new Error(`function ${func.name} has no body`);
      const hints = body.finish(code);
      if (hints.length > 0) hinted.push({ index: func.index, hints });
    }
    section(SECTION.type, this.types.length, (s) => {
      for (const type of this.types) {
        s.u8(0x60);
        s.u32(type.params.length);
        for (const param of type.params) s.u8(VAL_TYPE_CODE[param]);
        s.u32(type.results.length);
        for (const result of type.results) s.u8(VAL_TYPE_CODE[result]);
      }
    });
    section(SECTION.import, this.imports.length, (s) => {
      for (const entry of this.imports) {
        s.name(entry.module);
        s.name(entry.name);
        entry.write(s);
      }
    });
    section(SECTION.func, own.length, (s) => {
      for (const func of own) s.u32(this.typeIndex(func.type));
    });
    const tables = this.tables.filter((table) => !table.imported);
    section(SECTION.table, tables.length, (s) => {
      for (const table of tables) {
        s.u8(VAL_TYPE_CODE.funcref);
        writeLimits(s, table);
      }
    });
    const memories = this.memories.filter((memory) => !memory.imported);
    section(SECTION.memory, memories.length, (s) => {
      for (const memory of memories) writeLimits(s, memory.limits);
    });
    const tags = this.tags.filter((tag) => !tag.imported);
    section(SECTION.tag, tags.length, (s) => {
      for (const tag of tags) {
        s.u8(0);
        s.u32(this.typeIndex(tag.type));
      }
    });
    const globals = this.globals.filter((global) => !global.imported);
    section(SECTION.global, globals.length, (s) => {
      for (const global of globals) {
        s.u8(VAL_TYPE_CODE[global.type]);
        s.u8(global.mutable ? 1 : 0);
        constantOf(global.type, global.initial).emit(s);
        s.u8(0x0b);
      }
    });
    section(SECTION.export, this.exports.length, (s) => {
      for (const entry of this.exports) {
        s.name(entry.name);
        s.u8(entry.kind);
        s.u32(entry.index);
      }
    });
    section(SECTION.elem, this.elements.length, (s) => {
      for (const element of this.elements) {
        s.u32(2);
        s.u32(element.table);
        constantOf("i32", element.offset).emit(s);
        s.u8(0x0b);
        s.u8(0);
        s.u32(element.funcs.length);
        for (const func of element.funcs) s.u32(func.index);
      }
    });
    if (hinted.length > 0) {
      const content = new ByteWriter();
      content.name("metadata.code.branch_hint");
      content.u32(hinted.length);
      for (const { index, hints } of hinted) {
        content.u32(index);
        content.u32(hints.length);
        for (const { at, likely } of hints) {
          content.u32(at);
          content.u32(1);
          content.u8(likely ? 1 : 0);
        }
      }
      out.u8(0);
      out.u32(content.length);
      out.raw(content.view());
    }
    if (own.length > 0) {
      out.u8(SECTION.code);
      const count = new ByteWriter();
      count.u32(own.length);
      out.u32(count.length + code.length);
      out.raw(count.view());
      out.raw(code.view());
    }
    section(SECTION.data, this.segments.length, (s) => {
      for (const segment of this.segments) {
        s.u32(2);
        s.u32(segment.memory.index);
        constantOf(segment.memory.addressType, segment.offset).emit(s);
        s.u8(0x0b);
        s.u32(segment.bytes.length);
        s.raw(segment.bytes);
      }
    });
    for (const { name, bytes } of this.custom) {
      const content = new ByteWriter();
      content.name(name);
      content.raw(bytes);
      out.u8(0);
      out.u32(content.length);
      out.raw(content.view());
    }
    this.writeNames(out);
    return out.toBytes();
  }

  private writeNames(out: ByteWriter): void {
    const names = new ByteWriter();
    names.u32(this.funcs.length);
    for (const func of this.funcs) {
      names.u32(func.index);
      names.name(func.name);
    }
    const content = new ByteWriter();
    content.name("name");
    content.u8(1);
    content.u32(names.length);
    content.raw(names.view());
    out.u8(0);
    out.u32(content.length);
    out.raw(content.view());
  }
}

function writeLimits(out: ByteWriter, limits: MemoryLimits): void {
  const flags = (limits.max !== undefined ? 1 : 0) | (limits.shared === true ? 2 : 0) | (limits.is64 === true ? 4 : 0);
  out.u8(flags);
  out.u53(limits.min);
  if (limits.max !== undefined) out.u53(limits.max);
}
