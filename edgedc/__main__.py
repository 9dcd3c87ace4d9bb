from edgedc.cli import main

main()
