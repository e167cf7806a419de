; Takes its time to power off: quietly, with a blank screen, but writing to its disk.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  count
more:
  call idle
  write_disk
  until DELAY, more
  power_off

  finish
