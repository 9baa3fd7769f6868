#!/usr/bin/env node
// The program `stratamap`.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { associationsCommand } from './associations.js';
import { controlCommands } from './control.js';
import { demoCommand } from './demo/command.js';
import { doctorCommand } from './doctor.js';
import { serveCommand } from './serve.js';
import { verifyCommand } from './verify.js';

const program = new Command('stratamap');
const { version, description } = JSON.parse(readFileSync(path.join(__dirname, '../../package.json'), 'utf8'));

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error; // whoever read the output has seen enough
});

program
  .description(description)
  .version(version)
  .showHelpAfterError('(see --help)')
  .addCommand(demoCommand())
  .addCommand(associationsCommand())
  .addCommand(serveCommand())
  .addCommand(doctorCommand());
for (const command of [...controlCommands(), verifyCommand()]) program.addCommand(command);
program.parseAsync();
