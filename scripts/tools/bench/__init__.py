"""What ``scripts/bench`` measures, and how.

    __main__     arguments, the order of the scenarios, the output
    delivery     CPU per delivered message: broadcast, targeted send, and the bare write(2)
    latency      one send at a time on an idle cluster, and a raw PUBLISH
    memory       resident memory per idle connection
    registry     Redis bytes per member
    ghosts       seconds until a killed node's members are gone
    peers        CPU per delivered message of others beside ours
    contest      one of them, running; contenders/ has their programs
    cluster      what the scenarios stand on: nodes and clients as processes, their CPU
    node, clients, writer      the programs that run as processes of their own
    engineio     what some of the clients speak
    children     how they are spoken to
    payloads     what is sent
    machine      CPU clocks, resident memory, descriptors, versions
    table        rows and how they are printed
    chart        the same as SVG: bars, and lines over time

Every scenario checks that each message arrived, once and in order; a row whose check failed says
so. Nothing here judges a time.
"""
