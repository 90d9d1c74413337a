// Imports in src/ point one way: the table under "Import rules" in docs/architecture.md is the rule, and this test reads it there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ROOT, type SourceFile, sourceFiles } from "./sources.ts";

const files = sourceFiles();

/** What each room (a folder, or a file with a row of its own) may import. */
function readRules(): Map<string, string[]> {
  const document = readFileSync(join(ROOT, "docs/architecture.md"), "utf8");
  const section = document.split("## Import rules")[1]?.split("\n## ")[0];
  assert.ok(section !== undefined, "docs/architecture.md has no section on import rules");
  const rules = new Map<string, string[]>();
  for (const [, from, allowed] of section.matchAll(/^\| `([^`]+)` \|(.*)\|$/gm))
    rules.set(
      from,
      Array.from(allowed.matchAll(/`([^`]+)`/g), (match) => match[1]),
    );
  return rules;
}

const rules = readRules();

/** The row that a file falls under: its own, or that of the innermost folder that has one. */
function roomOf(path: string): string | undefined {
  for (let room = path; room !== "."; room = room.includes("/") ? room.slice(0, room.lastIndexOf("/")) : ".")
    if (rules.has(room)) return room;
  return undefined;
}

test("the rules name what exists and nothing else", () => {
  assert.ok(rules.size > 10, "the table of import rules was not found");
  const paths = new Set(files.map(({ path }) => path));
  for (const allowed of new Set([...rules.values()].flat())) {
    if (allowed === "node:") continue;
    assert.ok(
      rules.has(allowed) || paths.has(allowed),
      `the import rules name ${allowed}, which is no file and no row`,
    );
  }
});

test("every import is one that its folder may make", () => {
  const wrong: string[] = [];
  for (const { path, imports } of files) {
    const room = roomOf(path);
    if (room === undefined) {
      wrong.push(`${path}: no row of the import rules covers it`);
      continue;
    }
    const allowed = rules.get(room) ?? [];
    for (const { target, line } of imports) {
      const builtIn = target.startsWith("node:");
      const good = builtIn
        ? allowed.includes("node:")
        : roomOf(target) === room || allowed.includes(target) || allowed.includes(roomOf(target) ?? "");
      if (!good) wrong.push(`${path}:${line} imports ${target}, which ${room} may not`);
    }
  }
  assert.deepEqual(wrong, []);
});

test("every import leads to a file of src/ or to Node", () => {
  const paths = new Set(files.map(({ path }) => path));
  const wrong = files.flatMap(({ path, imports }) =>
    imports
      .filter(({ target }) => !target.startsWith("node:") && !paths.has(target))
      .map(({ target, line }) => `${path}:${line} imports ${target}`),
  );
  assert.deepEqual(wrong, []);
});

// Two files may name each other's types: those are gone when the program runs.
test("no file imports itself by way of others", () => {
  const graph = new Map(files.map((file) => [file.path, file]));
  const finished = new Set<string>();
  const cycles: string[] = [];
  const visit = (file: SourceFile, way: readonly string[]): void => {
    const at = way.indexOf(file.path);
    if (at >= 0) {
      cycles.push([...way.slice(at), file.path].join(" -> "));
      return;
    }
    if (finished.has(file.path)) return;
    for (const { target, typeOnly } of file.imports) {
      const next = graph.get(target);
      if (next !== undefined && !typeOnly) visit(next, [...way, file.path]);
    }
    finished.add(file.path);
  };
  for (const file of files) visit(file, []);
  assert.deepEqual(cycles, []);
});

test("no default exports, no barrels", () => {
  const wrong: string[] = [];
  for (const { path, text, imports } of files) {
    if (/^export default\b|^export\s*\{[^}]*\bas default\b/m.test(text)) wrong.push(`${path} has a default export`);
    if (/^export\s*(type\s*)?\*/m.test(text)) wrong.push(`${path} exports all of another file`);
    if (path === "index.ts") continue;
    for (const { target, line, reexport } of imports)
      if (reexport) wrong.push(`${path}:${line} passes on exports of ${target}`);
  }
  assert.deepEqual(wrong, []);
});
