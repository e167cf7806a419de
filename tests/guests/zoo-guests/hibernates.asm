; Writes its memory to disk instead of ending (S4), as Windows does with Fast Startup.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  say "off"
  sleep S4

  finish
