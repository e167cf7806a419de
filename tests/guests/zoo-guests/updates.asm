; Installs updates before it powers off (T5.1): writes to its disk all the while, says so on the
; screen, and something on the screen moves.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  show "Getting Windows ready", 10, "Do not turn off your computer"
  count
more:
  call idle
  write_disk
  move_screen
  until DELAY, more
  power_off

  finish
