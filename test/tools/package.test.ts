// The package as npm makes and installs it, and bin/skep in each place where it can lie. Nothing is downloaded.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const hasCommand = existsSync(join(root, "src/cli/main.ts"));
const needsCommand = hasCommand ? {} : { skip: "there is no command yet" };
let folder = "";

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "skep-package-"));
});
after(() => rm(folder, { recursive: true, force: true }));

function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = process.env) {
  return spawnSync(command, args, { cwd, env, encoding: "utf8", timeout: 120_000 });
}

/** The environment without what `node --test` and `npm test` leave in it, the test's Node first in PATH. */
function cleanEnv(): NodeJS.ProcessEnv {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_)/i.test(name)));
  return { ...env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
}

test("npm pack, install and run: no types are left to strip", needsCommand, async () => {
  const packed = run("npm", ["pack", "--pack-destination", folder, "--loglevel=error"], root, cleanEnv());
  assert.equal(packed.status, 0, packed.stderr);
  const tarball = (await readdir(folder)).find((name) => name.endsWith(".tgz"));
  assert.ok(tarball !== undefined);
  const app = join(folder, "app");
  await mkdir(app);
  await writeFile(join(app, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }));
  const flags = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"];
  const installed = run("npm", ["install", ...flags, join(folder, tarball)], app, cleanEnv());
  assert.equal(installed.status, 0, installed.stderr);
  assert.deepEqual(
    (await readdir(join(app, "node_modules"))).filter((name) => !name.startsWith(".")),
    ["skep"],
  );

  const help = run(join(app, "node_modules/.bin/skep"), ["--help"], app, cleanEnv());
  assert.equal(help.status, 0, help.stderr);
  assert.match(help.stdout, /skep run/);

  await writeFile(
    join(app, "use.js"),
    'import { VirtualMachine } from "skep"; console.log(typeof VirtualMachine.create);\n',
  );
  const used = run(process.execPath, ["use.js"], app, cleanEnv());
  assert.equal(used.stdout, "function\n", used.stderr);
});

test("bin/skep runs through symbolic links, from any directory", needsCommand, async () => {
  const link = join(folder, "linked-skep");
  await symlink(join(root, "bin/skep"), link);
  const help = run(link, ["--help"], "/", cleanEnv());
  assert.equal(help.status, 0, help.stderr);
  assert.match(help.stdout, /skep run/);
});

test("bin/node is the pinned Node, and knows the package's own name", async () => {
  const version = run(join(root, "bin/node"), ["--print", "process.versions.node"], "/", { PATH: "/usr/bin:/bin" });
  assert.match(version.stdout, /^26\./);
  const self = run(join(root, "bin/node"), ["--print", 'import.meta.resolve("skep")'], root, cleanEnv());
  if (self.status === 0) assert.match(self.stdout, /src\/index\.ts/);
});

test("an old Node, or none, is one clear line", async () => {
  const bin = join(folder, "old");
  await mkdir(bin);
  const shell = run("sh", ["-c", "for tool in sh readlink dirname; do command -v $tool; done"], "/")
    .stdout.trim()
    .split("\n");
  for (const tool of shell) await symlink(tool, join(bin, tool.slice(tool.lastIndexOf("/") + 1)));
  // A package without npm's own Node beside it.
  const place = join(folder, "elsewhere/node_modules/skep");
  await mkdir(join(place, "bin"), { recursive: true });
  run("cp", [join(root, "bin/skep"), join(place, "bin/skep")], "/");
  const missing = run("/bin/sh", [join(place, "bin/skep")], "/", { PATH: bin });
  assert.equal(missing.status, 4);
  assert.match(missing.stderr, /^skep: no Node\.js found: [^\n]*\n$/);
  await writeFile(join(bin, "node"), "#!/bin/sh\necho v18.19.0\n");
  await chmod(join(bin, "node"), 0o755);
  const old = run("/bin/sh", [join(place, "bin/skep")], "/", { PATH: bin });
  assert.equal(old.status, 4);
  assert.match(old.stderr, /^skep: Node v18\.19\.0 is too old: [^\n]*\n$/);
});

test("bin/setup has nothing to do twice", () => {
  const again = run("sh", [join(root, "bin/setup")], "/", { PATH: "/usr/bin:/bin" });
  assert.equal(again.status, 0);
  assert.equal(again.stdout + again.stderr, "");
});
